"""The import contracts hold, and commands load only what they need."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = (
    "torch",
    "triton",
    "pytorch_lightning",
    "apache_beam",
    "wandb",
    "numpy",
    "sentencepiece",
    "fsspec",
)


def loaded_after(code: str, cwd: Path | None = None) -> set[str]:
    """Return the modules of HEAVY that a fresh Python has loaded after ``code``."""
    script = f"{code}\nimport sys\nprint('LOADED', *[m for m in {HEAVY!r} if m in sys.modules])"
    run = [sys.executable, "-P", "-c", script]
    answer = subprocess.run(run, capture_output=True, text=True, cwd=cwd or ROOT, check=True)
    return set(answer.stdout.rsplit("LOADED", 1)[1].split())


def test_the_import_contracts_hold() -> None:
    answer = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import pipeline.cli", set()),
        ("import biloom", set()),
        ("from biloom import VectorCache", {"numpy"}),
        ("from biloom import BiLM", {"numpy", "torch"}),
        (
            "import pipeline.lifecycle.registry, pipeline.stages.run, pipeline.commands.dry_run",
            {"numpy"},
        ),
    ],
)
def test_an_import_loads_only_what_it_needs(code: str, allowed: set[str]) -> None:
    assert loaded_after(code) <= allowed


def test_models_and_caches_are_read_without_modules_that_only_unix_has() -> None:
    missing = "fcntl", "grp", "pwd", "resource", "termios"
    code = f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"
    read = "from biloom import BiLM, ScalarMix, VectorCache, VectorDataset"
    assert "torch" in loaded_after(code + read)


def test_every_module_is_short() -> None:
    files = [
        p
        for top in ("pipeline", "lightning_modules", "preprocess")
        for p in (ROOT / top).rglob("*.py")
    ]
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in files}
    assert {name: n for name, n in lengths.items() if n > 350} == {}


def test_the_folder_of_temporary_files_is_checked_wherever_it_is_used() -> None:
    files = [
        p
        for top in ("pipeline", "lightning_modules", "preprocess")
        for p in (ROOT / top).rglob("*.py")
    ]
    uses = [p for p in files if "import tempfile" in p.read_text(encoding="utf-8")]
    assert uses
    for path in uses:
        assert "temporary_root()" in path.read_text(encoding="utf-8"), path
