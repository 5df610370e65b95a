"""Every shipped config is one that loads, says what it says, and survives `--print-config`."""

from pathlib import Path

import pytest

from pipeline.config_file import dump_config, find_config, load_config

SHIPPED = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def test_configs_are_shipped() -> None:
    assert SHIPPED


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
