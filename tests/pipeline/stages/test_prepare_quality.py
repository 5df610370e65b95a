"""The prepare stage with rules, lists, benchmarks and masks: counts, examples, refusals, same bytes."""

import json
from pathlib import Path

import pytest

from pipeline.cli import main
from preprocess.files.manifest import read_manifest

Capture = pytest.CaptureFixture[str]

QUESTION = "Which of the two old rivers that cross the town is longer, and why is it so?"
CONFIG = """\
run: {{output: {output}}}
tokenizer: {{kind: char}}
runner: {{options: {{mode: in_memory}}}}
prepare:
  input: [{{name: web, path: {folder}/web.jsonl, id_field: url}}]
  valid_fraction: 0.1
  filters:
    urls: {{domains: {folder}/domains.txt}}
    gopher_quality: {{min_words: 10, min_stop_words: 1}}
    c4: {{min_sentences: 1}}
  mask: {{email: <email>}}
  decontamination: {{benchmarks: {{rivers: {folder}/rivers.txt}}}}
"""


def write_input(folder: Path) -> None:
    rows = []
    for number in range(60):
        text = f"Text {number} tells of the house and the garden.\nMenu {number}\nAsk a{number}@b.org for more of it."
        if number % 10 == 1:
            text = "short"
        if number % 10 == 2:
            text = f"Question {number}: {QUESTION}"
        host = "ads.bad.org" if number % 10 == 3 else "good.org"
        rows.append(json.dumps({"url": f"https://{host}/{number}", "text": text}) + "\n")
    (folder / "web.jsonl").write_text("".join(rows))
    (folder / "domains.txt").write_text("bad.org\n")
    (folder / "rivers.txt").write_text(f"{QUESTION}\nshort\n")


def config(folder: Path, name: str = "run") -> str:
    path = folder / f"{name}.yaml"
    path.write_text(CONFIG.format(folder=folder, output=folder / name))
    return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    write_input(folder)
    for stage in ("tokenizer", "prepare"):
        assert main([stage, config(folder)]) == 0
    return folder


def test_what_was_removed_is_counted_and_shown(made: Path) -> None:
    folder = made / "run" / "prepare"
    stats = json.loads((folder / "stats.json").read_text())
    assert stats["documents"]["read"] == 60
    assert stats["documents"]["written"] == 42
    assert stats["documents"]["dropped"] == {
        "url_domain": 6,
        "gopher_too_few_words": 6,
        "contaminated_rivers": 6,
    }
    screening = stats["screening"]
    assert screening["removed_lines"] == {"c4_no_terminal_punctuation": 42}
    assert screening["masked"] == {"email": 42}
    assert screening["benchmarks"] == {
        "rivers": {"items": 2, "matched": 1, "short": 1, "without_text": 0}
    }
    assert screening["examples"]["gopher_too_few_words"] == ["short"]
    assert len(screening["examples"]["email"]) == 2
    page = (folder / "corpus.html").read_text()
    assert "@b.org" not in page
    assert "Examples for each reason" in page
    manifest = read_manifest(str(folder), "prepare")
    assert "examples" not in manifest.details["screening"]
    assert str(made) not in json.dumps(manifest.details)
    [saved] = folder.glob("dropped-*.jsonl")
    lines = [json.loads(line) for line in saved.read_text().splitlines()]
    assert len(lines) == 6
    assert lines[0]["benchmark"] == "rivers"
    assert lines[0]["item"] == 1
    assert lines[0]["where"].endswith("id=https://good.org/2")


@pytest.mark.parametrize("setting", ["part_tokens=700", "unit_bytes=1024"])
def test_the_report_does_not_depend_on_segments_and_units(
    made: Path, tmp_path: Path, setting: str
) -> None:
    tokenizer = f"prepare.tokenizer={made / 'run' / 'tokenizer'}"
    arguments = [config(made), f"run.output={tmp_path}", tokenizer, f"prepare.{setting}"]
    assert main(["prepare", *arguments]) == 0
    found, expected = (
        json.loads((folder / "prepare" / "stats.json").read_text())["screening"]
        for folder in (tmp_path, made / "run")
    )
    assert found == expected


def test_a_list_with_another_content_is_another_request(made: Path, capsys: Capture) -> None:
    copied = made / "copy.txt"
    copied.write_text("bad.org\n")
    assert main(["prepare", config(made), f"prepare.filters.urls.domains={copied}"]) == 0
    assert "already done" in "".join(capsys.readouterr())
    copied.write_text("other.org\n")
    assert main(["prepare", config(made), f"prepare.filters.urls.domains={copied}"]) == 2
    assert "prepare.filters.urls.content" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prepare.filters.urls.domains=/none", "filters.urls: /none: cannot be read"),
        ("prepare.filters.c4.bad_words=/none", "filters.c4.bad_words: /none: cannot be read"),
        ("prepare.decontamination.benchmarks={a: /none}", "benchmarks: /none: cannot be read"),
        ("prepare.filters.c5={}", "unknown key 'prepare.filters.c5'"),
    ],
)
def test_a_wrong_list_or_rule_is_refused_without_a_traceback(
    made: Path, capsys: Capture, override: str, message: str
) -> None:
    assert main(["prepare", config(made), override]) == 2
    told = "".join(capsys.readouterr())
    assert message in told
    assert "Traceback" not in told


def test_lists_of_urls_without_any_url_are_warned_of(
    made: Path, tmp_path: Path, capsys: Capture
) -> None:
    path = Path(config(made, "without"))
    path.write_text(path.read_text().replace(", id_field: url", ""))
    tokenizer = f"prepare.tokenizer={made / 'run' / 'tokenizer'}"
    assert main(["prepare", str(path), f"run.output={tmp_path}", tokenizer]) == 0
    assert "none of the 60 documents has a URL as its id" in "".join(capsys.readouterr())
