"""Speed and memory of `biloom prepare`, compared with the bare tokenizer and Hugging Face datasets.

    python benchmarks/prepare.py [en-simplewiki-100MB.txt.xz] [--repeats 3] [--hf-python PYTHON]

Without a file, the file of this name in $BILOOM_TEST_DATA is read. It is decompressed; each line is a
document. The text of 400 MB consists of four copies with the number of the copy before each line, so
that no line is a duplicate. Everything runs with two worker processes, a unigram tokenizer with 32,000
pieces, default cleaning and exact deduplication. biloom and the other program run in turns; a ratio
is the median over the turns:

- over_sentencepiece: throughput of biloom from the start of the first unit to the manifest, divided
  by that of two processes that hold the documents in memory and only encode them, 256 per call;
- cpu_over_sentencepiece: CPU seconds of these two processes, divided by those of biloom, with its start and
  its end;
- over_hf_datasets: as over_sentencepiece, but divided by that of load_dataset + map (clean, hash, encode) + filter +
  save_to_disk of a Python with `datasets`, without its imports;
- peak_rss_400mb_over_10mb: peak memory of the process tree with 400 MB divided by that with 10 MB,
  with units of 4 MB.
"""

import argparse
import json
import lzma
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from process_tree import tree_mb

MB = 10**6
COPIES = 4
TEN_MB = 10 * MB

ENCODE = """
import sys, time
import sentencepiece
model = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])
part = int(sys.argv[3])
with open(sys.argv[2], encoding="utf-8", newline="\\n") as file:
    documents = [line.rstrip("\\n") for line in file]
documents = [text for text in documents if text]
documents = documents[part * len(documents) // 2 : (part + 1) * len(documents) // 2]
print("ready", flush=True)
sys.stdin.readline()
began, tokens = time.process_time(), 0
for start in range(0, len(documents), 256):
    batch = documents[start : start + 256]
    tokens += sum(map(len, model.encode(batch, num_threads=1, return_type="numpy")))
print(time.process_time() - began, flush=True)
"""

DATASETS = """
import sys, time, unicodedata, re, hashlib
import datasets, sentencepiece
datasets.disable_progress_bars()
control = re.compile("[\\x00-\\x08\\x0e-\\x1b\\x7f-\\x84\\x86-\\x9f\\ufeff]")
model = None

def work(batch):
    global model
    if model is None:
        model = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])
    texts = [" ".join(unicodedata.normalize("NFC", control.sub("", t)).split()) for t in batch["text"]]
    texts = [text for text in texts if text]
    ids = model.encode(texts, num_threads=1, return_type="numpy")
    return {"ids": ids, "hash": [hashlib.blake2b(t.encode(), digest_size=16).digest() for t in texts]}

began = time.time()
data = datasets.load_dataset("text", data_files=sys.argv[2], split="train", cache_dir=sys.argv[3])
data = data.map(work, batched=True, batch_size=1000, num_proc=2, remove_columns=["text"])
seen = set()
keep = [n for n, h in enumerate(data["hash"]) if not (h in seen or seen.add(h))]
data = data.select(keep).remove_columns(["hash"])
data.save_to_disk(sys.argv[3] + "/saved", num_proc=2)
print(time.time() - began)
"""


def main() -> None:
    # Workers too must run this checkout.
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="biloom-benchmark-") as name:
        folder = Path(name)
        texts = _texts(Path(arguments.text), folder)
        tokenizer = folder / "tokenizer-run"
        _biloom("tokenizer", texts["100mb"], tokenizer, "tokenizer.vocabulary=32000")
        model = tokenizer / "tokenizer" / "tokenizer.model"
        figures: dict[str, float | None] = {}
        startups = []
        for size in ("100mb", "400mb"):
            ratios, of_cpu = [], []
            for turn in range(arguments.repeats):
                alone, alone_cpu = _encode(model, texts[size])
                run = _prepare(texts[size], folder / f"{size}-{turn}", tokenizer)
                ratios.append(alone / run["seconds"])
                of_cpu.append(alone_cpu / run["cpu"])
                startups.append(run["startup"])
                megabytes = texts[size].stat().st_size / MB
                print(
                    f"{size}: prepare {megabytes / run['seconds']:.1f} MB/s, two processes that only "
                    f"encode {megabytes / alone:.1f} MB/s, ratio {ratios[-1]:.3f}; "
                    f"CPU {run['cpu']:.1f} and {alone_cpu:.1f} s, ratio {of_cpu[-1]:.3f}; "
                    f"start-up {run['startup']:.1f} s"
                )
            figures[f"over_sentencepiece_{size}"] = round(statistics.median(ratios), 3)
            figures[f"cpu_over_sentencepiece_{size}"] = round(statistics.median(of_cpu), 3)
        figures["startup_s"] = round(statistics.median(startups), 2)
        figures["over_hf_datasets"] = _over_datasets(arguments, texts["100mb"], folder, tokenizer)
        peaks = {}
        for size in ("10mb", "100mb", "400mb"):
            options = "prepare.unit_bytes=4194304"
            peaks[size] = _prepare(texts[size], folder / f"m{size}", tokenizer, options)["peak_mb"]
            print(f"{size}: peak memory of the process tree {peaks[size]:.0f} MB")
            figures[f"peak_rss_mb_{size}"] = round(peaks[size])
        figures["peak_rss_400mb_over_10mb"] = round(peaks["400mb"] / peaks["10mb"], 3)
        print(json.dumps(figures))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    data = os.environ.get("BILOOM_TEST_DATA")
    default = f"{data}/raw/en-simplewiki-100MB.txt.xz" if data else None
    parser.add_argument("text", nargs="?", default=default, help="text of 100 MB, plain or .xz")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each comparison")
    parser.add_argument(
        "--hf-python", help="Python interpreter with `datasets` and `sentencepiece`"
    )
    arguments = parser.parse_args()
    if not arguments.text:
        parser.error("name a text, or set BILOOM_TEST_DATA")
    return arguments


def _texts(source: Path, folder: Path) -> dict[str, Path]:
    """Write the texts of 10, 100 and 400 MB; return their paths."""
    data = source.read_bytes()
    data = lzma.decompress(data) if source.suffix == ".xz" else data
    lines = data.splitlines(keepends=True)
    paths = {size: folder / f"{size}.txt" for size in ("10mb", "100mb", "400mb")}
    paths["10mb"].write_bytes(data[: data.rindex(b"\n", 0, TEN_MB) + 1])
    paths["100mb"].write_bytes(data)
    with open(paths["400mb"], "wb") as file:
        for copy in range(COPIES):
            mark = f"{copy} ".encode()
            file.writelines(mark + line for line in lines)
    return paths


def _command(stage: str, text: Path, output: Path, *settings: str) -> list[str]:
    options = ("runner.options.mode=multi_processing", "runner.options.workers=2")
    # Not the installed command, so that this checkout is measured.
    call = "import sys; from pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    return [
        *(sys.executable, "-c", call, stage, f"prepare.input={text}", f"run.output={output}"),
        *(options if stage == "prepare" else ()),
        *settings,
    ]


def _biloom(stage: str, text: Path, output: Path, *settings: str) -> None:
    done = subprocess.run(_command(stage, text, output, *settings), capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def _encode(model: Path, text: Path) -> tuple[float, float]:
    """Return the seconds that two processes need only to encode the documents, and their CPU seconds."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ENCODE, str(model), str(text), str(part)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in range(2)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    began = time.perf_counter()
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    cpu = 0.0
    for process in processes:
        assert process.stdout
        cpu += float(process.stdout.readline())
    seconds = time.perf_counter() - began
    for process in processes:
        process.communicate()
    return seconds, cpu


def _prepare(text: Path, output: Path, tokenizer: Path, *settings: str) -> dict[str, float]:
    """Return seconds from the first unit to the manifest and before, CPU seconds, and peak memory in MB."""
    tokenizer_folder = f"prepare.tokenizer={tokenizer}/tokenizer"
    command = _command("prepare", text, output, tokenizer_folder, *settings)
    work = output / "prepare" / "_work"
    manifest = output / "prepare" / "manifest.json"
    moments: dict[str, float] = {}
    peak, cpu = 0.0, sum(os.times()[2:4])
    began = time.time()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(process.communicate()[0]))
    reader.start()
    while reader.is_alive():
        if "unit" not in moments and [*work.glob("*/progress")]:
            moments["unit"] = time.time()
        peak = max(peak, tree_mb(process.pid))
        time.sleep(0.02)
    reader.join()
    if process.returncode or "unit" not in moments:
        sys.exit("".join(said))
    return {
        "seconds": manifest.stat().st_mtime - moments["unit"],
        "startup": moments["unit"] - began,
        "cpu": sum(os.times()[2:4]) - cpu,
        "peak_mb": peak,
    }


def _over_datasets(
    arguments: argparse.Namespace, text: Path, folder: Path, tokenizer: Path
) -> float | None:
    if not arguments.hf_python:
        print("datasets: not compared (see --hf-python)")
        return None
    model = tokenizer / "tokenizer" / "tokenizer.model"
    ratios = []
    for turn in range(arguments.repeats):
        cache = folder / f"datasets-{turn}"
        command = [arguments.hf_python, "-c", DATASETS, str(model), str(text), str(cache)]
        offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
        done = subprocess.run(command, capture_output=True, text=True, env=offline)
        if done.returncode:
            sys.exit(done.stderr)
        theirs = float(done.stdout.split()[-1])
        ours = _prepare(text, folder / f"beside-datasets-{turn}", tokenizer)
        ratios.append(theirs / ours["seconds"])
        print(
            f"datasets {theirs:.1f} s, prepare {ours['seconds']:.1f} s (with start-up "
            f"{ours['seconds'] + ours['startup']:.1f} s), ratio {ratios[-1]:.2f}"
        )
    return round(statistics.median(ratios), 2)


if __name__ == "__main__":
    main()
