"""What the pages say of the code is so: names, keys, packages, extras, words of messages."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from lightning_modules.tasks.classification.config import ClassifyConfig
from lightning_modules.tasks.tagging.config import TagConfig
from pipeline.config.probing import ProbeConfig
from pipeline.config.runners import RunnerConfig
from pipeline.config.schema import Config
from pipeline.lifecycle.registry import STAGES
from preprocess.section import Section

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")}
PACKAGES = ("pipeline", "lightning_modules", "preprocess")


def first_column(text: str) -> list[str]:
    """The code in the first cell of each row of a Markdown table."""
    return [name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in codes(row)]


def codes(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def section(page: str, heading: str) -> str:
    return DOCS[page].split(f"## {heading}\n")[1].split("\n## ")[0]


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 145


def test_the_readme_links_to_files_that_exist() -> None:
    links = re.findall(r"\]\(([^):]+)\)", README)
    assert len(links) > 15
    for link in links:
        assert (ROOT / link.partition("#")[0]).is_file(), link


def test_the_readme_and_the_index_lead_to_every_guide() -> None:
    guides = {f"{path.name}" for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    linked = set(re.findall(r"\(docs/([\w-]+\.md)", README))
    assert guides - {"architecture.md"} <= linked
    assert guides <= set(re.findall(r"\(([\w-]+\.md)\)", DOCS["index"]))


CONFIGS: tuple[type[Section], ...] = (Config, ClassifyConfig, TagConfig, ProbeConfig)


def test_settings_that_are_named_exist() -> None:
    named = {
        code.partition("=")[0]
        for text in (README, *DOCS.values())
        for code in codes(text)
        if re.fullmatch(rf"({'|'.join(Config.model_fields)})(\.\w+)+(=.*)?", code)
    }
    assert len(named) > 50
    for key in named:
        if not key.endswith((".html", ".json", ".onnx", ".safetensors", ".sbatch")):
            assert any(exists(of, key.split(".")) for of in CONFIGS), key


def exists(of: type[Section], path: list[str]) -> bool:
    """Whether some kind of a section has the key."""
    if path[0] not in of.model_fields:
        return False
    below = set(sections(of.model_fields[path[0]].annotation))
    return not path[1:] or any(exists(one, path[1:]) for one in below)


def sections(annotation: object) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from sections(part)


def test_the_architecture_names_every_package_and_no_other() -> None:
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    named = [one for one in first_column(DOCS["architecture"]) if one.startswith(PACKAGES)]
    assert sorted(named) == sorted(found)


def test_the_architecture_names_paths_that_exist() -> None:
    for name in first_column(section("architecture", "Beside the packages")):
        assert (ROOT / name).exists(), name
    for name in codes(section("architecture", "Five walks through the code")):
        if "/" in name:
            assert (ROOT / name).is_dir(), name


def test_the_places_to_add_something_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = [code for code in codes(text) if "/" in code]
    assert len(paths) > 12
    for path in paths:
        assert (ROOT / path).exists(), path


def test_the_stages_are_in_order() -> None:
    assert first_column(section("concepts", "Stages")) == list(STAGES)


def test_the_engines_are_those_of_the_config() -> None:
    kinds = {one.model_fields["kind"].default for one in sections(RunnerConfig)}
    of_the_readme = README.split("## Engines\n")[1].split("\n## ")[0]
    for table in (section("engines", "What runs where"), of_the_readme):
        assert set(first_column(table)) - {"runner.kind"} == kinds


def test_the_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(first_column(section("installing", "Extras"))) == {*project["optional-dependencies"]}
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for pin in re.findall(r"torch==[\w.]+", DOCS["installing"]):
        assert pin in pins.splitlines()


def test_the_shipped_configs_are_named() -> None:
    shipped = {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    sentence = re.search(r"name of a shipped config: (.*?)\. ", DOCS["command-line"], re.DOTALL)
    assert sentence
    assert set(codes(sentence[1])) == shipped


def test_the_words_of_messages_are_in_the_code() -> None:
    said = "\n".join(text for package in PACKAGES for text in strings(ROOT / package))
    quoted = re.findall(
        r"\*\*Words in the message:\*\*(.*?)\n\n", DOCS["troubleshooting"], re.DOTALL
    )
    fragments = [words for line in quoted for words in re.findall(r'"([^"]+)"', line)]
    assert len(fragments) > 50
    assert [words for words in fragments if words not in said and words not in OF_THE_SYSTEM] == []


OF_THE_SYSTEM = {"No space left on device"}


def strings(folder: Path) -> Iterator[str]:
    """The strings in the code below a folder, with ``{}`` for what is filled in."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                parts = (str(getattr(one, "value", "{}")) for one in node.values)
                yield "".join("{}" if part.startswith("<ast") else part for part in parts)


def test_what_the_extra_all_holds_is_documented_exactly() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (held,) = project["optional-dependencies"]["all"]
    names = held.removeprefix("biloom[").removesuffix("]").split(",")
    row = re.search(
        r"^\| `all` \| exactly (.*?): every extra above except (.*?) \|$",
        DOCS["installing"],
        re.MULTILINE,
    )
    assert row
    assert codes(row[1]) == names
    above = DOCS["installing"].split("| `all` |")[0]
    assert {name for name in first_column(above) if name in project["optional-dependencies"]} == {
        *names,
        *codes(row[2]),
    }
