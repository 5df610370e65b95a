"""A run whose results may lie anywhere, for tests of stores."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.lifecycle.registry import STAGES
from preprocess.files import storage
from preprocess.files.manifest import check_files, read_manifest


@dataclass(frozen=True)
class StoredRun:
    """Raw text, a config for it in ``root/run.yaml``, and the results on a local disk in ``root/disk``."""

    root: Path

    def arguments(self, output: str, *overrides: str) -> list[str]:
        return [str(self.root / "run.yaml"), f"run.output={output}", *overrides]

    def contents(self, output: str) -> dict[str, str]:
        """Return the content hashes of the finished stages in ``output``, whose files are checked."""
        found = {}
        for name in STAGES:
            folder = f"{output}/{name}"
            if storage.exists(f"{folder}/manifest.json"):
                manifest = read_manifest(folder, name)
                assert check_files(folder, manifest) == []
                assert storage.list_names(f"{folder}/_work") == []
                found[name] = manifest.content
        return found

    def equals_disk(self, output: str, *stages: str) -> bool:
        """Return True if ``stages`` in ``output`` are finished, with the bytes of those on the disk."""
        here, there = self.contents(str(self.root / "disk")), self.contents(output)
        return all(there.get(stage) == here[stage] for stage in stages)
