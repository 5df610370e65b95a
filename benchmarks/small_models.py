"""Ways to make a language model smaller, in one table: size, speed, perplexity, senses and tasks.

    python benchmarks/small_models.py RUN OUT --text FILE [--variants NAME ...] [--measures NAME ...]
        [--steps N] [--types N] [--documents N] [--data FOLDER]

RUN is a finished run with the stages prepare, train and export; FILE is its training text, a document a
line. OUT has a folder per variant. A finished part is not computed again, so that an interrupted
benchmark goes on.

    teacher               the exported model
    float16, int8         weights of another type
    no-head               without the output layer
    types                 with the vectors of all words of the vocabulary, for a character CNN only
    layers-1              the lowest recurrent layer only
    student-2, student-4  all widths divided by 2 and by 4, trained with the teacher for --steps steps
    alone-4               the network of student-4, trained for as many steps without the teacher
    static                the mean contextual vector of each of the --types most frequent words, over the
                          first --documents documents of FILE
    static-int8           the same, half as wide by principal components, stored as int8
    counts                vectors of the same words and width without a language model: singular vectors of the
                          positive pointwise mutual information of words in a window of 5 words, over all of FILE
                          (Levy et al. 2015: distances weighted, contexts smoothed by 0.75, values to the power 0.5)

Measures:

    size        MB of the weights, and number of parameters
    speed       tokens per CPU second of one thread, one text at a time and all at once, and microseconds
                of a text alone: the first 1,000 texts of SST-2
    perplexity  of WikiText-2's validation text, each line by itself, the geometric mean of the directions
    senses      accuracy of `senses.py`, the best layer
    sst2        accuracy on dev, `biloom classify` with head=pool
    conll2003   F1 on testa, `biloom tag`

The last line is a JSON object with the measures of each variant.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from sklearn.utils.extmath import randomized_svd
from tasks import rows_of
from tasks import run as run_task

from biloom import BiLM
from lightning_modules.distillation.static_model import static_weights
from lightning_modules.evaluation.scoring import score_texts
from lightning_modules.models.model_folder import CONFIG, WEIGHTS, save_model
from lightning_modules.nn.bilm import NoHead
from lightning_modules.tasks.probing.senses import word_senses
from preprocess.files.manifest import (
    content_hash,
    read_manifest,
    records_of,
    write_manifest,
)

BILOOM = (sys.executable, "-m", "pipeline.cli")
VARIANTS = (
    *(
        "teacher",
        "float16",
        "int8",
        "no-head",
        "types",
        "layers-1",
        "student-2",
        "student-4",
        "alone-4",
    ),
    *("static", "static-int8", "counts"),
)
MEASURES = ("size", "speed", "perplexity", "senses", "sst2", "conll2003")
WINDOW, SMOOTHING, POWER = 5, 0.75, 0.5
SPEED_TEXTS = 1000
WIDTHS = re.compile(r"model\.recurrent\.(hidden|projection)|model\.input\.dim")


class Variants:
    """Makes the model folders.

    Args:
        options: command-line options.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._run, self._out, self._options = options.run, options.out, options
        self._teacher = options.run / "export"

    def folder(self, name: str) -> Path:
        """Return the model folder of a variant, which is made if it is missing."""
        if name == "teacher":
            return self._teacher
        folder = self._out / "models" / name
        if (folder / "manifest.json").exists():
            return folder
        if name in ("float16", "int8"):
            self._shrink(folder, "--weights", name)
        elif name == "no-head":
            self._shrink(folder, "--no-head")
        elif name == "layers-1":
            self._shrink(folder, "--layers", "1", "--no-head")
        elif name == "types":
            return self._types(folder)
        elif name.startswith(("student-", "alone-")):
            return self._trained(name)
        elif name == "counts":
            self._counts(folder)
        else:
            self._static(folder, name)
        return folder

    def _shrink(self, folder: Path, *options: str) -> None:
        _biloom("shrink", self._teacher, folder, *options)

    def _types(self, folder: Path) -> Path:
        run = folder.parent / "types-run"
        _biloom(
            *(
                "export",
                self._teacher / "config.yaml",
                f"run.output={run}",
                "export.type_vectors=true",
            ),
            f"export.checkpoint={self._run}/train",
        )
        return run / "export"

    def _trained(self, name: str) -> Path:
        kind, _, divisor = name.partition("-")
        run = self._out / "models" / f"{name}-run"
        settings = [
            *(f"train.corpus={self._run}/prepare", f"train.steps={self._options.steps}"),
            *(f"prepare.tokenizer={self._run}/tokenizer", f"run.output={run}"),
            *self._narrower(int(divisor)),
        ]
        config = self._run / "train" / "config.yaml"
        if kind == "student":
            settings.append(f"train.teacher.model={self._teacher}")
        for stage in ("train", "evaluate", "export"):
            _biloom(stage, config, *settings)
        return run / "export"

    def _narrower(self, divisor: int) -> Iterator[str]:
        """Yield settings that divide the widths of the teacher."""
        model = json.loads((self._teacher / CONFIG).read_text())["model"]
        for part, names in (("recurrent", ("hidden", "projection")), ("input", ("dim",))):
            is_character = part == "input" and "filters" in model["input"]
            for name in names:
                if model[part].get(name) and not is_character:
                    yield f"model.{part}.{name}={model[part][name] // divisor}"
        if "filters" in model["input"]:
            filters = [[width, count // divisor] for width, count in model["input"]["filters"]]
            yield f"model.input.filters={json.dumps(filters)}"

    def _static(self, folder: Path, name: str) -> None:
        words = folder.parent / "words"
        if not (words / "manifest.json").exists():
            self._shrink(words, "--vocabulary", str(self._options.types), "--no-head")
        text = folder.parent / "documents.txt"
        with open(self._options.text, encoding="utf-8") as file:
            text.write_text(
                "".join(line for line, _ in zip(file, range(self._options.documents), strict=False))
            )
        more = []
        if name == "static-int8":
            more = ["--dim", str(BiLM.from_pretrained(words).dim // 2), "--weights", "int8"]
        _biloom(
            "distill", "--model", words, "--to", "static", "--input", text, "--out", folder, *more
        )

    def _counts(self, folder: Path) -> None:
        """Write the vectors as a model of the form of the variant static."""
        static = self.folder("static")
        model, manifest = BiLM.from_pretrained(static), read_manifest(str(static))
        vectors = _count_vectors(model, self._options.text)
        config = json.loads((static / CONFIG).read_text())
        names = save_model(str(folder), static_weights(vectors), config, model.tokenizer)
        files = tuple(records_of(str(folder), names))
        write_manifest(
            str(folder), replace(manifest, content=content_hash(files), files=files, beside=())
        )


def _count_vectors(model: BiLM, path: Path) -> npt.NDArray[np.float32]:
    """Return vectors of a model's types from the co-occurrences in a text, (types, dim)."""
    size = model.tokenizer.vocabulary
    counts = scipy.sparse.csr_matrix((size, size), dtype=np.float32)
    with open(path, encoding="utf-8") as file:
        while lines := file.readlines(1 << 24):
            ids = np.concatenate([_ids(model, line) for line in lines])
            for distance in range(1, WINDOW + 1):
                pairs = ids[:-distance], ids[distance:]
                kept = (pairs[0] >= 0) & (pairs[1] >= 0)
                ones = np.full(kept.sum(), 1 / distance, np.float32)
                places = pairs[0][kept], pairs[1][kept]
                counts += scipy.sparse.csr_matrix((ones, places), shape=(size, size))
    both = (counts + counts.T).tocoo()
    words = np.asarray(both.sum(1)).ravel()
    contexts = words**SMOOTHING
    expected = words[both.row] * contexts[both.col] / contexts.sum()
    both.data = np.maximum(np.log(both.data / expected), 0)
    left, values, _ = randomized_svd(both.tocsr(), model.dim, random_state=0)
    return np.ascontiguousarray(left * values**POWER, np.float32)


def _ids(model: BiLM, line: str) -> npt.NDArray[np.int64]:
    """Return the ids of a document, and -1 behind it often enough that no window spans two."""
    ids = np.asarray(model.tokenizer.encode([line])[0], np.int64)
    return np.concatenate([ids, np.full(WINDOW, -1)])


class Measures:
    """Measures a model folder.

    Args:
        options: command-line options.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._out, self._data = options.out, options.data
        rows = (self._data / "labelled/sst2/dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
        more = (self._data / "labelled/sst2/train.tsv").read_text(encoding="utf-8").splitlines()[1:]
        self._texts = [row.split("\t")[0].split() for row in (*rows, *more)][:SPEED_TEXTS]

    def of(self, measure: str, name: str, folder: Path) -> dict[str, float]:
        """Return a measure of a variant, computed once."""
        kept = self._out / "measures" / f"{name}-{measure}.json"
        if not kept.exists():
            found = getattr(self, measure)(name, folder)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(found))
        done: dict[str, float] = json.loads(kept.read_text())
        return done

    def size(self, name: str, folder: Path) -> dict[str, float]:
        model = BiLM.from_pretrained(folder)
        parameters = sum(weight.numel() for weight in model.network.parameters())
        return {"mb": (folder / WEIGHTS).stat().st_size / 1e6, "parameters": parameters}

    def speed(self, name: str, folder: Path) -> dict[str, float]:
        model = BiLM.from_pretrained(folder)
        tokens = sum(map(len, self._texts))
        model.embed(self._texts)  # the vectors of words are kept
        began = time.process_time()
        for text in self._texts:
            model.embed([text])
        one = time.process_time() - began
        began = time.process_time()
        model.embed(self._texts)
        batches = time.process_time() - began
        return {
            "tokens_one": tokens / one,
            "tokens_batches": tokens / batches,
            "microseconds": 1e6 * one / len(self._texts),
        }

    def perplexity(self, name: str, folder: Path) -> dict[str, float]:
        model = BiLM.from_pretrained(folder)
        if isinstance(model.network.head, NoHead):
            return {}
        text = (self._data / "lm/wikitext-2/wiki.valid.tokens").read_text(encoding="utf-8")
        scores = score_texts(model, [line.split() for line in text.splitlines() if line.strip()])
        tokens = sum(score.tokens for score in scores)
        return {"perplexity": math.exp(-sum(score.log_probability for score in scores) / tokens)}

    def senses(self, name: str, folder: Path) -> dict[str, float]:
        model = BiLM.from_pretrained(folder)
        found = word_senses(model, str(self._data / "labelled/wsd/wsd_senseval.tsv")).scores
        layers = {kind: score.value for kind, score in found.items() if "layer" in kind}
        return {"senses": 100 * max(layers.values())}

    def sst2(self, name: str, folder: Path) -> dict[str, float]:
        return self._task(name, folder, "classify", ("sst2/train.tsv", "sst2/dev.tsv"), "head=pool")

    def conll2003(self, name: str, folder: Path) -> dict[str, float]:
        files = ("conll2003/eng.train", "conll2003/eng.testa")
        return self._task(name, folder, "tag", files, "baselines=false")

    def _task(
        self, name: str, folder: Path, command: str, files: tuple[str, str], *settings: str
    ) -> dict[str, float]:
        train, dev = (self._data / "labelled" / file for file in files)
        out = self._out / "tasks" / f"{name}-{command}"
        run_task(
            [command, "train", str(train), "--model", str(folder), "--out", str(out), f"dev={dev}",
             "seeds=1", *settings],
            out,
        )  # fmt: skip
        found = rows_of(out)
        return {row: 100 * score.value for row, score in found.items()}


def _biloom(*arguments: object) -> None:
    print("biloom", *arguments, flush=True)
    subprocess.run([*BILOOM, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    data = os.environ.get("BILOOM_TEST_DATA")
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--steps", type=int, default=19_000, help="of training a student")
    parser.add_argument("--types", type=int, default=30_000, help="of static vectors")
    parser.add_argument("--documents", type=int, default=50_000, help="for static vectors")
    parser.add_argument("--data", type=Path, default=data)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    options.out = options.out.absolute()
    options.out.mkdir(parents=True, exist_ok=True)
    variants, measures = Variants(options), Measures(options)
    figures: dict[str, dict[str, Any]] = {}
    for measure in options.measures:
        for name in options.variants:
            found = measures.of(measure, name, variants.folder(name))
            figures.setdefault(name, {})[measure] = found
            shown = ", ".join(f"{key} {value:,.1f}" for key, value in found.items())
            print(f"{name}, {measure}: {shown}", flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
