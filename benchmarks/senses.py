"""How well the layers of a model separate the senses of a word, compared with a static vector.

    python benchmarks/senses.py MODEL [--data FOLDER] [--lower]

MODEL is a model folder. The data folder (default: $BILOOM_TEST_DATA/labelled) holds
wsd/wsd_senseval.tsv and the English dev pairs of mcl-wic. The tasks are those of `biloom probe` with
task=senses and task=wic. --lower lower-cases the texts, for a model that was trained on lower-cased
text.
"""

import argparse
import json
import os
from pathlib import Path

import torch

from biloom import BiLM
from lightning_modules.tasks.probing.senses import same_sense, word_senses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--lower", action="store_true")
    options = parser.parse_args()
    data = options.data or Path(os.environ["BILOOM_TEST_DATA"]) / "labelled"
    torch.set_num_threads(1)
    model = BiLM.from_pretrained(options.model)
    case = str.lower if options.lower else str
    senses = word_senses(model, str(data / "wsd" / "wsd_senseval.tsv"), case)
    pairs = same_sense(model, str(data / "mcl-wic" / "dev.en-en.data"), case=case)
    for title, found in (("sense of a word", senses), ("same sense or not", pairs)):
        print(f"\n{title}")
        for kind, score in found.scores.items():
            print(f"  {kind:<28} {100 * score.value:5.1f} %")
    figures = {
        name: {kind: score.value for kind, score in found.scores.items()}
        for name, found in (("senses", senses), ("same_sense", pairs))
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
