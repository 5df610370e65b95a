"""Time and memory of `biloom tokenizer` and `biloom prepare` as a corpus grows, for three layouts.

    python benchmarks/large_corpus.py FOLDER [--megabytes 1000 10000] [--layouts text files zst]
        [--text en-simplewiki-100MB.txt.xz] [--setting KEY=VALUE ...] [--processes PID ...]

Documents are made from the sentences of a text: each has 3 to 60 sentences that a seeded generator
draws, so that no two are equal. The layouts are text files of 1 GB, 200,000 files of equal size, and one
Zstandard file; all have a document a line. FOLDER needs three times the largest size. Finished folders
are reused, so that a stopped run goes on where it was. ``--setting`` is passed to `biloom prepare`, for
example the settings of a Flink cluster, whose TaskManagers and worker pool are then named with
``--processes``: their memory and CPU time are counted too.

For each layout, the ratios compare the largest corpus with the smallest:

- seconds_per_gb: wall seconds per GB of the command, with its start;
- cpu_per_gb: CPU seconds per GB of the command, of what it started, and of ``--processes``;
- peak: peak memory in MB of the same processes.
"""

import argparse
import json
import lzma
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import zstandard
from process_tree import tree_cpu, tree_mb

MB = 10**6
FILES = 200_000
FILE_BYTES = 1000 * MB
FEWEST, MOST = 3, 60
Figures = dict[str, float]


def main() -> None:
    # Workers too must run this checkout.
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    arguments = _arguments()
    sentences = _sentences(Path(arguments.text))
    figures: dict[str, Figures] = {}
    ratios: dict[str, float] = {}
    for layout in arguments.layouts:
        for megabytes in arguments.megabytes:
            folder = arguments.folder / f"{layout}-{megabytes}"
            name = f"{layout}_{megabytes}"
            figures.update(_measure(name, folder, sentences, layout, megabytes, arguments))
        least, most = min(arguments.megabytes), max(arguments.megabytes)
        for stage in ("tokenizer", "prepare"):
            small, large = (figures[f"{layout}_{size}_{stage}"] for size in (least, most))
            for key in small:
                ratios[f"{layout}_{stage}_{key}"] = round(large[key] / small[key], 3)
                print(f"{layout}, {stage}: {key} {small[key]:,.1f} -> {large[key]:,.1f}")
    print(json.dumps({**ratios, "figures": figures}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    data = os.environ.get("BILOOM_TEST_DATA")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[1000, 10000])
    layouts = ["text", "files", "zst"]
    parser.add_argument("--layouts", nargs="+", default=layouts, choices=layouts)
    default = f"{data}/raw/en-simplewiki-100MB.txt.xz" if data else None
    parser.add_argument("--text", default=default, help="text from which sentences are drawn")
    parser.add_argument("--setting", nargs="*", default=[], help="settings of biloom prepare")
    parser.add_argument("--processes", type=int, nargs="*", default=[], help="of a cluster")
    arguments = parser.parse_args()
    if not arguments.text:
        parser.error("name a text with --text, or set BILOOM_TEST_DATA")
    return arguments


def _sentences(path: Path) -> list[bytes]:
    data = path.read_bytes()
    text = (lzma.decompress(data) if path.suffix == ".xz" else data).decode()
    found = {s.strip() for line in text.split("\n") for s in re.split(r"(?<=[.!?]) ", line)}
    return sorted(sentence.encode() for sentence in found if len(sentence) >= 20)


def _documents(sentences: list[bytes], seed: int, size: int) -> Iterator[bytes]:
    """Yield lines that together have at least ``size`` bytes."""
    draw = random.Random(seed)
    made = 0
    while made < size:
        line = b" ".join(draw.choices(sentences, k=draw.randint(FEWEST, MOST))) + b"\n"
        made += len(line)
        yield line


def _make(folder: Path, sentences: list[bytes], layout: str, megabytes: int) -> None:
    """Write a corpus into a folder, which is renamed when it is complete."""
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    size = megabytes * MB
    if layout == "files":
        each = size // FILES
        for number in range(FILES):
            below = part / f"{number // 1000:03d}"
            below.mkdir(exist_ok=True)
            lines = b"".join(_documents(sentences, number, each))
            (below / f"{number:06d}.txt").write_bytes(lines)
    else:
        pieces = range(-(-size // FILE_BYTES))
        texts = [
            _documents(sentences, number, min(FILE_BYTES, size - number * FILE_BYTES))
            for number in pieces
        ]
        if layout == "zst":
            compressor = zstandard.ZstdCompressor(3, threads=2)
            with open(part / "all.txt.zst", "wb") as raw, compressor.stream_writer(raw) as packed:
                for line in chain.from_iterable(texts):
                    packed.write(line)
        else:
            for number, piece in enumerate(texts):
                with open(part / f"{number:04d}.txt", "wb", 1 << 20) as file:
                    file.writelines(piece)
    part.rename(folder)


def _measure(
    name: str,
    folder: Path,
    sentences: list[bytes],
    layout: str,
    megabytes: int,
    options: argparse.Namespace,
) -> dict[str, Figures]:
    text, output, kept = folder / "text", folder / "run", folder / "figures.json"
    if not kept.exists():
        if not text.exists():
            began = time.perf_counter()
            _make(text, sentences, layout, megabytes)
            print(f"{name}: made in {time.perf_counter() - began:.0f} s", flush=True)
        shutil.rmtree(output, ignore_errors=True)
        pattern = {"text": "*.txt", "files": "*/*.txt", "zst": "*.zst"}[layout]
        found: dict[str, Figures] = {}
        for stage, more in (
            ("tokenizer", ["tokenizer.vocabulary=32000"]),
            ("prepare", options.setting),
        ):
            arguments = [stage, f"prepare.input={text}/{pattern}", f"run.output={output}", *more]
            found[f"{name}_{stage}"] = _run(arguments, megabytes, options.processes)
            print(f"{name}: {stage} {found[f'{name}_{stage}']}", flush=True)
        kept.write_text(json.dumps(found))
    result: dict[str, Figures] = json.loads(kept.read_text())
    return result


def _run(arguments: list[str], megabytes: int, others: list[int]) -> Figures:
    """Run a command of biloom; return seconds and CPU seconds per GB, and the peak memory in MB."""
    # Not the installed command, so that this checkout is measured.
    call = "import sys; from pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    others_before = sum(map(tree_cpu, others))
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", call, *arguments], stderr=subprocess.STDOUT,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(process.communicate()[0]))
    reader.start()
    peak = 0.0
    while reader.is_alive():
        peak = max(peak, sum(map(tree_mb, (process.pid, *others))))
        time.sleep(0.1)
    seconds = time.perf_counter() - began
    if process.returncode:
        sys.exit("".join(said))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    cpu += sum(map(tree_cpu, others)) - others_before
    per_gb = 1000 / megabytes
    return {
        "seconds_per_gb": round(seconds * per_gb, 2),
        "cpu_per_gb": round(cpu * per_gb, 2),
        "peak": round(peak, 1),
    }


if __name__ == "__main__":
    main()
