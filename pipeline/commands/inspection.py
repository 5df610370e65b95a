"""`biloom inspect` and `biloom check`, for the folder of any finished stage."""

import json

from pipeline.console import Console, count
from pipeline.reports.assessment import show_concerns
from pipeline.reports.perplexity_tables import evaluations, show_evaluation
from preprocess.files import storage
from preprocess.files.manifest import NAME, DamagedManifest, FileRecord, check_files, read_manifest

SHOWN_FILES = 8


def inspect(path: str) -> int:
    """Print the manifest of a stage folder; return 0.

    Raises:
        ManifestError: the stage is not finished, or its manifest is damaged.
    """
    path = folder_of(path)
    manifest = read_manifest(path)
    console = Console()
    console.stage(manifest.stage, path)
    console.line(f"content      {manifest.content}")
    console.line(f"fingerprint  {manifest.fingerprint}")
    console.line(f"made by      biloom {manifest.biloom}, format {manifest.format}")
    if manifest.stage == "evaluate":
        for figures in evaluations(manifest.details):
            show_evaluation(console, figures)
            show_concerns(console, figures)
    else:
        for key, value in manifest.details.items():
            console.line(f"{key}: {json.dumps(value, ensure_ascii=False)}")
    files = manifest.all_files
    size = sum(file.bytes for file in files)
    rows = [
        [file.name, f"{file.bytes:,}", ", ".join(f"{k} {v}" for k, v in file.counts.items())]
        for file in files[:SHOWN_FILES]
    ]
    if len(files) > SHOWN_FILES:
        rows.append([f"... {len(files) - SHOWN_FILES:,} more", "", ""])
    console.table(f"{len(files):,} files, {count(size)}B", ["file", "bytes", ""], rows)
    return 0


def check(path: str) -> int:
    """Hash every file of a stage folder; return 0 if all match the manifest, else 1.

    Raises:
        ManifestError: the stage is not finished, or a newer version wrote it.
    """
    path = folder_of(path)
    console = Console()
    try:
        manifest = read_manifest(path)
    except DamagedManifest as error:
        console.warn(str(error))
        return 1
    files = manifest.all_files
    total = sum(file.bytes for file in files)
    done = 0
    with console.bar("check", total) as bar:

        def progress(file: FileRecord) -> None:
            nonlocal done
            done += file.bytes
            bar.update(done, file.name)

        problems = check_files(path, manifest, progress)
    for problem in problems:
        console.warn(problem)
    if problems:
        console.line(f"{len(problems):,} of {len(files):,} files are damaged")
        return 1
    console.line(f"{len(files):,} files, {count(total)}B: all match the manifest")
    return 0


def folder_of(path: str) -> str:
    """Return the stage folder; ``path`` is the folder or its manifest."""
    return storage.absolute(path).removesuffix(f"/{NAME}")
