"""The estimates of `biloom look`, compared with runs of the tokenizer and prepare stages.

    python benchmarks/estimates.py [FOLDER] [--only NAME ...]

FOLDER (default: $BILOOM_TEST_DATA/raw) has en-simplewiki-100MB.txt.xz, en-wiki.8MB.txt and
zh-wiki.5MB.txt. Corpora are made from them: plain text, xz, JSON Lines, and 20 copies of the Chinese text
with the number of the copy before each line, so that no line is a duplicate. For each stage, `biloom look
--json` runs first, then the stage. Of the stage are measured: CPU time of all its processes, wall time,
peak of their resident memory together, and peak size of its folder, a hard link counted once. A line per
stage shows estimate / truth; the last line is one JSON object with these ratios.
"""

import argparse
import json
import lzma
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from process_tree import tree_mb

MB = 10**6
COPIES = 20
DISK_SECONDS, MEMORY_SECONDS = 0.25, 0.03
"""Seconds between two measurements."""
CALL = "import sys; from pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
TWO = ("runner.options.mode=multi_processing", "runner.options.workers=2")
NEAR = ("prepare.near_duplicates.similarity=0.8",)
RUNS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "tokenizer-english": ("tokenizer", "en-wiki.txt", ()),
    "tokenizer-chinese": ("tokenizer", "zh-wiki.txt", ()),
    "english": ("prepare", "english.txt", ()),
    "english-xz": ("prepare", "english.txt.xz", ()),
    "english-two-workers": ("prepare", "english.txt", TWO),
    "english-jsonl-near": ("prepare", "english.jsonl", NEAR),
    "chinese": ("prepare", "chinese.txt", ()),
}
"""Stage, corpus and settings of each run. A run of prepare uses the tokenizer of its language."""


def main() -> None:
    # Workers too must run this checkout.
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    arguments = _arguments()
    ratios: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="biloom-estimates-") as name:
        folder = Path(name)
        _make_corpora(Path(arguments.folder), folder)
        for run, (stage, corpus, settings) in RUNS.items():
            language = "chinese" if corpus.startswith(("zh", "chinese")) else "english"
            tokenizer = folder / f"tokenizer-{language}"
            output = tokenizer if stage == "tokenizer" else folder / run
            words = [f"prepare.input={folder / corpus}", f"run.output={output}", *settings]
            if stage == "prepare":
                words.append(f"prepare.tokenizer={tokenizer}/tokenizer")
            needed = stage == "tokenizer"  # by the runs of prepare
            if arguments.only and run not in arguments.only and not needed:
                continue
            look = _look(words)
            estimate, seconds = look["estimates"][stage], look["seconds"]
            truth = _measure([stage, *words], output)
            ratios[run] = _compared(run, estimate, truth, seconds)
    print(json.dumps(ratios))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    data = os.environ.get("BILOOM_TEST_DATA")
    parser.add_argument("folder", nargs="?", default=f"{data}/raw" if data else None)
    parser.add_argument("--only", nargs="*", choices=RUNS, help="names of the runs (default: all)")
    arguments = parser.parse_args()
    if not arguments.folder:
        parser.error("name a folder, or set BILOOM_TEST_DATA")
    return arguments


def _make_corpora(source: Path, folder: Path) -> None:
    packed = (source / "en-simplewiki-100MB.txt.xz").read_bytes()
    text = lzma.decompress(packed)
    (folder / "english.txt.xz").write_bytes(packed)
    (folder / "english.txt").write_bytes(text)
    (folder / "en-wiki.txt").write_bytes((source / "en-wiki.8MB.txt").read_bytes())
    chinese = (source / "zh-wiki.5MB.txt").read_bytes()
    (folder / "zh-wiki.txt").write_bytes(chinese)
    with open(folder / "chinese.txt", "wb") as file:
        for copy in range(COPIES):
            file.writelines(f"{copy} ".encode() + line + b"\n" for line in chinese.splitlines())
    with open(folder / "english.jsonl", "w", encoding="utf-8") as records:
        for number, line in enumerate(text[: 50 * MB].decode("utf-8", "ignore").splitlines()):
            if line:
                records.write(json.dumps({"id": number, "text": line}, ensure_ascii=False) + "\n")


def _look(words: list[str]) -> dict[str, Any]:
    """Return what `biloom look` tells of these settings, and the seconds it took."""
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-c", CALL, "look", *words, "--json"], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout)
    return {**answer, "seconds": time.time() - began}


def _measure(words: list[str], output: Path) -> dict[str, float]:
    """Run a stage; return seconds, CPU seconds, and bytes of memory, disk and result."""
    began, measured = time.time(), 0.0
    process = subprocess.Popen(
        [sys.executable, "-c", CALL, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    told: list[str] = []
    reader = threading.Thread(target=lambda out: told.append(out.read()), args=(process.stdout,))
    reader.start()
    memory = disk = 0
    while True:
        # With the time of all descendants that ended and were waited for.
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        memory = max(memory, round(10**6 * tree_mb(process.pid)))
        if time.time() - measured > DISK_SECONDS:
            measured, disk = time.time(), max(disk, _folder_bytes(output / words[0]))
        time.sleep(MEMORY_SECONDS)
    seconds = time.time() - began
    reader.join()
    if status:
        sys.exit("".join(told))
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "memory": memory,
        "disk": disk,
        "result": _folder_bytes(output / words[0]),
    }


def _folder_bytes(folder: Path) -> int:
    """Return the bytes of the files below a folder, each once however many names it has."""
    sizes: dict[int, int] = {}
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                status = (Path(base) / name).lstat()
            except FileNotFoundError:
                continue
            sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


def _compared(
    run: str, estimate: dict[str, Any], truth: dict[str, float], seconds: float
) -> dict[str, float]:
    """Print a stage's estimates and truths; return the ratios, and the seconds that the look took."""
    shown, ratios = [], {}
    for key, unit in (
        ("cpu_seconds", 1),
        ("seconds", 1),
        ("memory", MB),
        ("disk", MB),
        ("result", MB),
    ):
        likely = estimate[key]["likely"] if estimate[key] else 0
        if likely:
            ratios[key] = round(likely / truth[key], 3)
            shown.append(f"{key} {likely / unit:.1f} / {truth[key] / unit:.1f}")
    print(f"{run}: estimate / truth: {', '.join(shown)}; look took {seconds:.1f} s", flush=True)
    return {**ratios, "look_seconds": round(seconds, 1)}


if __name__ == "__main__":
    main()
