"""Import biloom's own packages, whatever files of the same names are on Python's path.

A project may have a `preprocess.py` or a `pipeline` folder of its own, which PYTHONPATH or the current
folder puts before installed packages. The `biloom` command starts here, because a project may have a
`biloom.py`, too.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

OWN = str(Path(__file__).absolute().parent)
"""The folder that biloom is installed in."""
PACKAGES = ("preprocess", "lightning_modules", "pipeline")


class _OwnPackages(MetaPathFinder):
    """Finds `PACKAGES` in `OWN` only."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [OWN]) if name in PACKAGES else None


_FINDER = _OwnPackages()


def use_own_packages() -> None:
    """Let this process import biloom's own packages from now on.

    Raises:
        ImportError: another file of such a name is imported already.
    """
    for name in PACKAGES:
        module = sys.modules.get(name)
        place = _place(getattr(module, "__spec__", None))
        if place and not _is_own(place):
            raise ImportError(
                f"{place} is imported as '{name}', which is the name of a package of biloom; rename it"
            )
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def foreign_files(path: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each package that would be imported from elsewhere than `OWN`, and its path.

    Args:
        path: folders in the order in which Python looks into them. No file is run.
    """
    for name in PACKAGES:
        place = _place(PathFinder.find_spec(name, path))
        if place and not _is_own(place):
            yield name, place


def main() -> int:
    """Run the `biloom` command and return its exit code."""
    try:
        use_own_packages()
    except ImportError as error:
        print(f"biloom: {error}", file=sys.stderr)
        return 2
    # Processes that a command starts have no finder yet when they import their first module.
    inherited = os.environ.get("PYTHONPATH", "")
    if inherited and any(foreign_files(inherited.split(os.pathsep))):
        os.environ["PYTHONPATH"] = os.pathsep.join((OWN, inherited))
    from pipeline.cli import main as run

    return run()


def _place(spec: ModuleSpec | None) -> str:
    """Return the file that a module is loaded from, or a folder without an `__init__.py`; or nothing."""
    if spec is None:
        return ""
    if spec.has_location and spec.origin:
        return spec.origin
    return next(iter(spec.submodule_search_locations or ()), "")


def _is_own(place: str) -> bool:
    return Path(place).resolve().is_relative_to(Path(OWN).resolve())
