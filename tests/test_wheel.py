"""The wheel, installed in a fresh environment and run from an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FIXTURE = ROOT / "tests" / "fixtures" / "version-0.1"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
RUN_BILOOM = "import sys; from _biloom import main; sys.exit(main())"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Installed:
    """An environment with biloom from the wheel; its dependencies are this environment's."""

    python: Path
    site: Path

    def run(self, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        return subprocess.run(
            [self.python, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def biloom(self, folder: Path, *arguments: str) -> str:
        answer = self.run(folder, "-c", RUN_BILOOM, *arguments)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "--no-deps", "--quiet", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run([*PIP, *build], check=True)
    return next(folder.glob("biloom-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    venv = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    paths = {"base": str(venv), "platbase": str(venv)}
    site = Path(sysconfig.get_path("purelib", "venv", paths))
    install = ["install", "--no-deps", "--quiet", "--target", site, wheel]
    subprocess.run([*PIP, *install], check=True)
    # A .pth file adds the dependencies, but no .pth file in that folder is read: no checkout is seen.
    (site / "dependencies.pth").write_text("\n".join(_dependencies()))
    return Installed(venv / "bin" / "python", site)


def _dependencies() -> list[str]:
    """The folders that installed packages are imported from."""
    return [path for path in sys.path if path.endswith("site-packages")]


def test_it_holds_the_packages_and_the_configs_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"pipeline", "lightning_modules", "preprocess", "biloom.py", "_biloom.py"}
    configs = {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert {Path(n).name for n in names if n.startswith("pipeline/configs/")} == configs


def test_it_runs_the_quick_start_from_an_empty_folder(installed: Installed, tmp_path: Path) -> None:
    where = installed.run(tmp_path, "-P", "-c", "import pipeline; print(pipeline.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(installed.site)
    assert shutil.which("biloom", path=str(installed.site / "bin"))
    plan = installed.biloom(tmp_path, "run", "quickstart", "--dry-run")
    assert f"plan of run  {tmp_path}/runs/quickstart\n" in plan
    assert list(tmp_path.iterdir()) == []
    # The shipped config, with few steps and little text, so that it takes a minute.
    small = ["train.steps=20", "train.compile=off", "train.evaluate_steps=20", "embed.sample=20"]
    text = f"prepare.input={FIXTURE}/corpus.txt"
    quick = ["tokenizer.vocabulary=320", "report.words=null", "tracking.wandb=off"]
    installed.biloom(tmp_path, "run", "quickstart", text, *small, *quick)
    assert (tmp_path / "runs" / "quickstart" / "report.html").is_file()
    read = (
        "from biloom import BiLM, VectorCache\n"
        "cache = VectorCache.open('runs/quickstart/embed')\n"
        "text = next(iter(cache))\n"
        "[embedding] = BiLM.from_pretrained('runs/quickstart/export').embed([text])\n"
        "print(len(cache), abs(embedding.vectors - cache[text]).max() < 1e-2)\n"
    )
    assert installed.run(tmp_path, "-c", read).stdout == "20 True\n"


def test_it_opens_a_run_of_version_0_1(installed: Installed, tmp_path: Path) -> None:
    folder = tmp_path / "former"
    shutil.copytree(FIXTURE, folder)
    printed = installed.biloom(folder, "run", "run.yaml")
    assert printed.count("already done\n") == 6
