"""Every shipped config is one that loads, says what it says, and can be planned."""

from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.config.load import dump_config, find_config, load_config
from preprocess.config import PrepareConfig

SHIPPED = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
EXPECTED = {
    *(
        "base",
        "chinese",
        "elmo-original",
        "gru",
        "ptb",
        "quickstart",
        "seed-small",
        "simple-english",
        "sru",
        "wikitext-2",
    ),
}


def test_configs_are_shipped() -> None:
    assert {path.stem for path in SHIPPED} == EXPECTED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_config_loads_dumps_and_loads_back_equal(path: Path, tmp_path: Path) -> None:
    config = load_config([str(path)], [])
    dumped = tmp_path / "config.yaml"
    dumped.write_text(dump_config(config), encoding="utf-8")
    assert load_config([str(dumped)], []) == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_config_is_found_by_its_bare_name(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(path.stem).samefile(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_config_is_planned_where_its_text_is(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    put_text(load_config([str(path)], []).prepare)

    assert main(["run", path.stem, "--dry-run"]) == 0

    printed = capsys.readouterr().out
    assert "  model: " in printed
    assert "  training: " in printed
    assert "to be made" in printed
    assert not list(tmp_path.rglob("manifest.json")), "nothing is touched"


def put_text(prepare: PrepareConfig) -> None:
    for source in prepare.sources:
        for pattern in source.paths:
            if not pattern.endswith(":"):
                file = Path(pattern.replace("*", "00001"))
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("a few words\n")
