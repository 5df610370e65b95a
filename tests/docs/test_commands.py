"""Every command, code block and config of the pages runs, on little text; or it says here why not.

The commands keep their words. What is small lies under them: configs of the shipped names, in which
only sizes differ, and input files at the paths that the pages name.
"""

import gzip
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import yaml
from pyarrow import parquet

from lightning_modules.config import ModelConfig
from lightning_modules.models.elmo_options import write_options
from lightning_modules.models.elmo_weights import write_weights
from lightning_modules.nn.bilm import BiLMNetwork
from pipeline import cli
from pipeline.config.load import load_config
from tests.lightning_modules.models.manylangs.small_model import make_model
from tests.tokenizer_files import tokenizer_file

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

NOT_RUN = {
    r"(time )?make (quickstart|test|docs|check)": "make itself: it installs packages",
    r"pip install": "it installs packages; the extras are compared with pyproject.toml",
    r"source \.venv": "it changes the shell",
    r"python benchmarks/": "it takes minutes; that its options exist is tested below",
    r"python -m apache_beam": "tests/pipeline/beam/test_on_engines.py starts worker pools",
    r"biloom .*runner\.kind=dask": "tests/pipeline/beam/test_on_engines.py runs Dask",
    r"biloom .*(runner\.kind=flink|flink\.yaml)": "it needs Java; test_on_engines.py runs Flink",
    r"biloom .*train\.devices=4": "four processes; test_train_processes.py runs two",
    r"(?!BILOOM_)(\w+=\S+ )+biloom": "a second machine; test_train_processes.py runs two",
    r"wandb (sweep|agent) ": "wandb's server; test_sweep.py runs wandb's agent on the example",
    r"(kubectl|sbatch) ": "a cluster; tests/deploy checks the files and starts SLURM",
    r"ssh ": "another machine",
    r"biloom export-onnx ": "some 20 s; tests/pipeline/commands/portable runs it",
    r"biloom serve ": "it serves until a signal; tests/pipeline/commands/serving starts it",
    r"curl ": "a server must run; tests/pipeline/serving sends such requests",
    r"(npm|node) ": "packages of npm; tests/examples/test_onnx_node.py runs the example where they are",
    r"(torchrun|srun) ": "a launcher; test_processes.py sets its variables",
}
"""What is not run, by the beginning of the command, and why."""

FRESH = {"README.md", "docs/getting-started.md", "docs/concepts.md", "docs/measurements.md"}
"""Pages that make the quick start's run themselves, or do not need it."""


WORDS = {
    "mytext": ("river", "tree", "house", "large", "and", "of", "water", "clean"),
    "law": ("court", "law", "party", "shall", "and", "of", "the", "contract"),
    "zh": ("河流", "樹木", "房子", "大的", "和", "水", "乾淨", "的", "银行", "我在"),
    "ja": ("かわ", "きの", "いえ", "おおきな", "みずは", "きれい", "テレビ", "を"),
    "th": ("แม่น้ำ", "ต้นไม้", "บ้าน", "ใหญ่", "และ", "น้ำ", "สะอาด", "ของ"),
}
SPACED = {"mytext", "law", "zh-words"}
CHARACTERS = {"kind": "char_cnn", "dim": 4, "filters": [[1, 4], [2, 4]], "max_characters": 20}
AS_GIVEN = "A text as it was given"


@dataclass(frozen=True)
class Step:
    """Something on a page that can be run: ``kind`` is sh, python or yaml."""

    kind: str
    text: str


def steps(page: Path) -> list[Step]:
    """The commands, code blocks and configs of a page, in the order in which they stand there."""
    return list(_steps(page.read_text(encoding="utf-8")))


def _steps(text: str) -> Iterator[Step]:
    # Fenced blocks by language; else inline code that begins with a program and an argument.
    fenced = re.compile(r"^```([\w{}-]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    place = 0
    for block in fenced.finditer(text):
        yield from _inline(text[place : block.start()])
        place = block.end()
        if block[1] == "sh":
            lines = block[2].replace("\\\n", " ").splitlines()
            yield from (Step("sh", line.strip()) for line in lines if line.strip())
        elif block[1] in ("python", "yaml"):
            yield Step(block[1], block[2])
    yield from _inline(text[place:])


def _inline(text: str) -> Iterator[Step]:
    for code in re.findall(r"`([^`]+)`", text):
        command = " ".join(code.split())
        if re.match(r"(time )?(biloom|make|python|pip) [^A-Z]", command):
            yield Step("name" if NAME.fullmatch(command) else "sh", command)


NAME = re.compile(r"biloom ((cache|classify|tag) )?[\w-]+")
"""A command's name in running text, without arguments."""


def small_steps(steps: int) -> int:
    """Training steps in a test for those of a page: few, and more for more."""
    return 10 + steps // 2500


def small(tree: dict[str, Any], text: str) -> dict[str, Any]:
    """A config with small sizes in the place of its own; all else stays."""
    tokenizer = tree.setdefault("tokenizer", {})
    if tokenizer.get("kind", "sentencepiece") == "sentencepiece":
        tokenizer["vocabulary"] = 320 + tokenizer.get("vocabulary", 0) // 1000
    prepare = tree.get("prepare", {})
    if prepare.get("input") == "installed-docs:":
        prepare["input"] = text
    if "input" in prepare:
        prepare.setdefault("valid_fraction", 0.1)
    model = tree.setdefault("model", {})
    recurrent = model.setdefault("recurrent", {})
    recurrent["hidden"] = 8
    if recurrent.get("kind", "lstm") == "lstm" and recurrent.get("projection", 1):
        recurrent["projection"] = 4
    if "dim" in model.get("input", {}):
        model["input"]["dim"] = 4
    if "cutoffs" in model.get("head", {}):
        model["head"]["cutoffs"] = [3]
    train = tree.setdefault("train", {})
    train.pop("passes", None)
    train |= {"rows": 4, "unroll": 5, "steps": small_steps(train.get("steps", 10_000))}
    train |= {"warmup_steps": 2, "log_steps": 2, "checkpoint_steps": 5, "evaluate_steps": 10}
    train |= {"compile": "off", "device": "cpu"}
    tree["embed"] = {"sample": 10} | tree.get("embed", {})
    tree["tracking"] = {"wandb": "off"}
    return tree


def small_word(word: str) -> str:
    """An argument as the test gives it: another only where it is a large number."""
    if match := re.fullmatch(r"train\.steps=(\d+)", word):
        return f"train.steps={small_steps(int(match[1]))}"
    if match := re.fullmatch(r"train\.passes=([\d.]+)", word):
        return f"train.passes={float(match[1]) / 10}"
    if re.fullmatch(r"train\.epochs=\d+", word):
        return "train.epochs=1"
    if match := re.fullmatch(r"tokenizer\.vocabulary=(\d+)", word):
        return f"tokenizer.vocabulary={320 + int(match[1]) // 1000}"
    return word


@dataclass(frozen=True)
class World:
    """Texts and finished folders that all pages share; nobody writes there."""

    root: Path

    def enter(self, folder: Path, fresh: bool) -> None:
        """Lay out ``folder`` for a page; not ``fresh``: with the quick start's finished run."""
        shutil.copytree(self.root / "texts", folder, dirs_exist_ok=True)
        if not fresh:
            shutil.copytree(self.root / "runs", folder / "runs", dirs_exist_ok=True)


def _lines(name: str, seed: int, number: int = 150) -> list[str]:
    draw = random.Random(seed)
    words = WORDS[name.partition("-")[0]]
    space = " " if name in SPACED else ""
    return [space.join(draw.choices(words, k=draw.randint(3, 10))) for _ in range(number)]


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _lay_out(folder: Path) -> None:
    for seed, name in enumerate(["mytext", "law", "zh", "zh-words", "ja", "th"]):
        for file in ("a", "b"):
            _write(
                folder / name / f"{file}.txt", [AS_GIVEN, *_lines(name, 2 * seed + (file == "b"))]
            )
    _write_probed(folder)
    for name in ("more.txt", "texts.txt", "old.txt", "valid.txt"):
        _write(folder / name, _lines("mytext", len(name), 20))
    reviews = [
        f"{'good' if n % 2 else 'bad'}\t{line}" for n, line in enumerate(_lines("mytext", 5, 60))
    ]
    _write(folder / "reviews.tsv", ["label\ttext", *reviews])
    for name in ("ptb.{}.txt", "wiki.{}.tokens"):
        for seed, split in enumerate(("train", "valid")):
            _write(folder / name.format(split), _lines("mytext", 50 + seed))
    rows = "".join(json.dumps({"body": line}) + "\n" for line in _lines("mytext", 77))
    for path in ("bucket/news/a.jsonl.gz", "web/a.parquet"):
        (folder / path).parent.mkdir(parents=True)
    (folder / "my").mkdir(exist_ok=True)
    (folder / "my/tokenizer.json").write_bytes(tokenizer_file("gpt2"))
    (folder / "bucket/news/a.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    parquet.write_table(pyarrow.table({"text": _lines("mytext", 78)}), folder / "web/a.parquet")
    # A file in the current folder goes before a shipped config of that name.
    for path in (ROOT / "configs").glob("*.yaml"):
        config = yaml.safe_dump(small(yaml.safe_load(path.read_text()), str(folder / "docs.txt")))
        for name in (folder / path.stem, folder / "configs" / path.name):
            name.parent.mkdir(exist_ok=True)
            name.write_text(config)
    _write_tagged(folder)
    _write_archive(folder)
    make_model(folder / "zhs.model")
    _write(folder / "docs.txt", _lines("mytext", 99, 300))
    _write(folder / "text" / "a.txt", _lines("mytext", 98))


def _write_probed(folder: Path) -> None:
    """Tagged sentences, senses of a word, and pairs of texts."""
    for seed, name in enumerate(("train.conll", "dev.conll")):
        lines = [line.split() for line in _lines("mytext", 60 + seed, 40)]
        rows = [[*(f"{word} {'NV'[len(word) % 2]}" for word in line), ""] for line in lines]
        _write(folder / name, [row for line in rows for row in line])
    _write(folder / "senses.tsv", [f"river\t{n % 2}\t1\tthe river {n}" for n in range(110)])
    side = {"sentence1": "a river", "start1": "2", "end1": "7"}
    side |= {"sentence2": "a river", "start2": "2", "end2": "7"}
    pairs, answers = [{"id": n, **side} for n in "ab"], [{"id": n, "tag": "T"} for n in "ab"]
    (folder / "pairs.data").write_text(json.dumps(pairs))
    (folder / "pairs.gold").write_text(json.dumps(answers))


def _write_tagged(folder: Path) -> None:
    """Sentences with names, their words, and texts to tag."""
    tagged = [
        [("Anna", "B-PER"), ("lives", "O"), *[("far", "O")] * far, ("in", "O"), (place, "B-LOC")]
        for far in range(4)
        for place in ("Oslo", "Rome", "Bern")
    ]
    for name, part in (("names.conll", tagged), ("names-dev.conll", tagged[1::2])):
        rows = [[*(f"{word} {tag}" for word, tag in one), ""] for one in part]
        _write(folder / name, [row for one in rows for row in one])
    _write(folder / "words.txt", [" ".join(word for word, _ in one) for one in tagged])
    _write(folder / "sentences.txt", ["Anna lives in Oslo.", "Nobody does."])


def _write_archive(folder: Path) -> None:
    """An ELMo archive of a small network with drawn weights."""
    lstm = {"kind": "lstm", "hidden": 8, "projection": 4, "forget_bias": 1}
    config = ModelConfig.model_validate({"input": CHARACTERS, "recurrent": lstm})
    (folder / "options.json").write_bytes(write_options(config))
    weights = {
        name: tensor.clone()
        for name, tensor in BiLMNetwork(config, 3, head=False).state_dict().items()
    }
    (folder / "weights.hdf5").write_bytes(write_weights(weights, config))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    _lay_out(root / "texts")
    output = f"run.output={root}/runs/quickstart"
    assert cli.main(["run", str(root / "texts" / "quickstart"), output, "report.words=null"]) == 0
    return World(root)


def reason_not_to_run(command: str) -> str | None:
    return next((why for what, why in NOT_RUN.items() if re.match(what, command)), None)


# Lightning advises on loaders and intervals.
@pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.parametrize("name", [n for n, p in zip(NAMES, PAGES, strict=True) if steps(p)])
def test_what_a_page_shows_runs(
    name: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    world.enter(tmp_path, fresh=name in FRESH)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for step in steps(ROOT / name):
        if step.kind == "python":
            exec(compile(step.text, name, "exec"), names)
        elif step.kind == "yaml":
            write_config(step.text, tmp_path)
        elif step.kind == "sh" and not reason_not_to_run(step.text):
            code = run(step.text, tmp_path)
            assert code == 0, f"{step.text}\n{capsys.readouterr().err}"


def write_config(text: str, folder: Path) -> None:
    """Write a config to the file that its first line names, with small sizes; or only load it."""
    tree = yaml.safe_load(text.replace("s3://", f"{folder}/"))
    named = re.match(r"# (\S+\.yaml)\n", text)
    path = folder / (named[1] if named else "unnamed.yaml")
    path.write_text(yaml.safe_dump(small(tree, "docs.txt") if "prepare" in tree else tree))
    load_config([str(path)], [] if "prepare" in tree else ["prepare.input=docs.txt"])


def run(command: str, folder: Path) -> int:
    words = [small_word(word) for word in shlex.split(command)]
    if words[0] == "biloom" and not {"|", ">"} & {*words}:
        try:
            return cli.main(words[1:])
        except SystemExit as ended:  # --help
            return int(ended.code or 0)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shell = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**os.environ, "PATH": path}, check=False
    )
    return shell.returncode


def test_what_is_not_run_stands_on_a_page() -> None:
    commands = [step.text for page in PAGES for step in steps(page) if step.kind == "sh"]
    for what in NOT_RUN:
        assert any(re.match(what, command) for command in commands), what


def test_commands_that_are_named_exist() -> None:
    names = {step.text for page in PAGES for step in steps(page) if step.kind == "name"}
    assert len(names) > 5
    for name in names:
        with pytest.raises(SystemExit) as ended:
            cli.main([*name.split()[1:], "--help"])
        assert ended.value.code == 0, name


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = [step.text for page in PAGES for step in steps(page) if step.kind == "sh"]
    named = {name for one in commands for name in re.findall(r"\bmake ([\w-]+)", one)}
    assert {"quickstart", "test", "docs"} <= named <= targets


def test_benchmarks_have_the_options_that_pages_give() -> None:
    seen = 0
    for page in PAGES:
        for step in steps(page):
            if step.text.startswith("python benchmarks/"):
                _, script, *words = shlex.split(step.text)
                code = (ROOT / script).read_text(encoding="utf-8")
                for option in (word for word in words if word.startswith("--")):
                    assert f'"{option}"' in code, f"{script} {option}"
                seen += 1
    assert seen >= 6
