"""Speed and memory of tokenizers, beside the libraries that they use.

    python benchmarks/tokenizer_speed.py [en-simplewiki-100MB.txt.xz] [--mb 5] [--vocabulary 16000]

Without a file, the file of this name in $BILOOM_TEST_DATA is read. Its first megabytes train each tokenizer,
and the next --mb megabytes are encoded, a line a document, 256 documents per call. Each tokenizer runs in a
process of its own, after a short warm-up. Speeds are in MB per CPU second: biloom's interface, and
`encode_batch_fast` of tokenizers with lists of ids (threads off) or `encode` of SentencePiece with arrays.
rss_mb is the memory that importing, loading and encoding add. The last line is one JSON object.
"""

import argparse
import json
import lzma
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

TRAINING_MB, BATCH = 5, 256
MB = 10**6


def train(kind: str, lines: Sequence[str], vocabulary: int) -> bytes:
    """Return the file of a tokenizer."""
    if kind.startswith("sentencepiece"):
        from preprocess.config import SentencePieceConfig
        from preprocess.tokenizers.subwords import MODEL, train_sentencepiece

        model: Any = kind.removeprefix("sentencepiece ")
        config = SentencePieceConfig(model=model, vocabulary=vocabulary)
        with tempfile.TemporaryDirectory() as folder:
            train_sentencepiece(config, lines).save(folder)
            return (Path(folder) / MODEL).read_bytes()
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    if kind == "byte-level BPE":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False
        )
    else:
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocabulary, special_tokens=["[UNK]"], show_progress=False
        )
    made.train_from_iterator(lines, trainer)
    return str(made.to_str()).encode()


def speed(encode: Callable[[list[str]], Any], lines: list[str]) -> float:
    """Return the megabytes per CPU second."""
    encode(lines[:BATCH])
    begun = time.process_time()
    for start in range(0, len(lines), BATCH):
        encode(lines[start : start + BATCH])
    seconds = time.process_time() - begun
    return sum(len(line.encode()) for line in lines) / MB / seconds


def resident() -> float:
    """Return the resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / MB


def measure(kind: str, file: bytes, lines: list[str]) -> dict[str, float]:
    """Return the speeds of biloom and the library, and the memory, in a process of its own."""
    before = resident()
    library: Callable[[list[str]], Any]
    ours: Any
    if kind.startswith("sentencepiece"):
        import sentencepiece

        from preprocess.tokenizers.subwords import SentencePieceTokenizer

        ours = SentencePieceTokenizer(file, keeps_marks=True)
        bare = sentencepiece.SentencePieceProcessor(model_proto=file)

        def library(texts: list[str]) -> Any:
            return bare.encode(texts, num_threads=1, return_type="numpy")
    else:
        from tokenizers import Tokenizer

        from preprocess.tokenizers.huggingface.tokenizer import HuggingFaceTokenizer

        ours = HuggingFaceTokenizer(file)
        fast = Tokenizer.from_buffer(file).encode_batch_fast

        def library(texts: list[str]) -> Any:
            return [one.ids for one in fast(texts, add_special_tokens=False)]

    biloom = [speed(ours.encode, lines)]
    memory = resident() - before
    alone = [speed(library, lines)]
    biloom.append(speed(ours.encode, lines))
    alone.append(speed(library, lines))
    return {"biloom": max(biloom), "library": max(alone), "rss_mb": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    raw = Path(os.environ.get("BILOOM_TEST_DATA", ".")) / "raw" / "en-simplewiki-100MB.txt.xz"
    parser.add_argument("file", nargs="?", type=Path, default=raw)
    parser.add_argument("--mb", type=float, default=5)
    parser.add_argument("--vocabulary", type=int, default=16_000)
    options = parser.parse_args()
    with lzma.open(options.file, "rt", encoding="utf-8") as file:
        lines = (line.rstrip("\n") for line in file)
        filled = (line for line in lines if line)
        size = 0
        training: list[str] = []
        while size < TRAINING_MB * MB:
            training += islice(filled, BATCH)
            size = sum(map(len, training))
        wanted = int(options.mb * MB)
        measured: list[str] = []
        while wanted > 0:
            measured.append(next(filled))
            wanted -= len(measured[-1].encode())
    kinds = ("byte-level BPE", "WordPiece", "sentencepiece bpe", "sentencepiece unigram")
    rows = {}
    print(f"{'tokenizer':24}{'biloom':>8}{'library':>9}{'ratio':>7}{'MB of memory':>14}")
    for kind in kinds:
        made = train(kind, training, options.vocabulary)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pool.apply(measure, (kind, made, measured))
        rows[kind] = {name: round(value, 2) for name, value in row.items()}
        ratio = row["biloom"] / row["library"]
        print(
            f"{kind:24}{row['biloom']:8.2f}{row['library']:9.2f}{ratio:7.2f}{row['rss_mb']:14.0f}",
            flush=True,
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
