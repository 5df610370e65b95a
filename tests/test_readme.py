"""What the README tells people to type works."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.parser import make_parser
from pipeline.commands.registry import COMMANDS
from pipeline.config.load import load_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(program: str) -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", README)
    # A bare name in running text is no command.
    return [line for line in lines + inline if line.split()[:1] == [program] and " " in line]


def test_its_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {command.split()[1] for command in commands("make")}
    assert {"quickstart", "test"} <= named <= targets


@pytest.mark.parametrize("command", [c for c in commands("biloom") if "|" not in c])
def test_its_commands_are_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options = make_parser(COMMANDS, "", "").parse(shlex.split(command)[1:])
    if hasattr(options, "config") and "swahili.yaml" not in command:
        overrides = [word for word in options.config if "=" in word]
        load_config([word for word in options.config if "=" not in word], overrides)


def test_its_stages_are_the_stages() -> None:
    from pipeline.lifecycle.registry import STAGES

    [line] = [c for block in blocks("sh") for c in block.splitlines() if "|" in c]
    assert re.findall(r"\w+", line.split("CONFIG")[0])[1:] == list(STAGES)


def test_its_config_is_understood(tmp_path: Path) -> None:
    [text] = blocks("yaml")
    (tmp_path / "swahili.yaml").write_text(text, encoding="utf-8")
    config = load_config([str(tmp_path / "swahili.yaml")], [])
    assert [source.name for source in config.prepare.sources] == ["news", "web", "old", "held-out"]


def test_its_python_runs(tiny: Any, trained: Path, tmp_path: Path) -> None:
    model = trained / "export"
    tiny.run("embed", tmp_path, f"embed.model={model}", f"embed.input={tiny.root}/corpus.txt")
    [code] = blocks("python")
    code = code.replace("runs/quickstart/embed", str(tmp_path / "embed"))
    code = code.replace("runs/quickstart/export", str(model))
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    text, cache, embedding = names["text"], names["cache"], names["embedding"]
    assert cache[text].shape == (cache.layers, len(cache.tokens(text)), cache.dim)
    assert embedding.vectors.shape == (cache.layers, len(embedding.tokens), cache.dim)


def test_every_file_of_its_tree_exists() -> None:
    tree = README.split("## The tree")[1].split("## ")[0]
    folder = ROOT
    for line in filter(str.strip, tree.splitlines()):
        indent = len(line) - len(line.lstrip())
        names = re.split(r" {3,}", line.strip())[0].split()
        for name in names:
            if indent == 4:
                folder = ROOT / name
                assert folder.is_dir() or ("." in name and folder.is_file()), name
            elif name.endswith((".py", "/")):
                assert (folder / name).exists(), name
