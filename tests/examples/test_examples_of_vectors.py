"""The examples of one's own tagger and of scikit-learn."""

import random
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def run(folder: Path, script: str, *arguments: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", ROOT / "examples" / script, *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def sentences(seed: int, number: int) -> list[list[str]]:
    draw = random.Random(seed)
    return [draw.choices(["kana", "loko", "mina", "teko"], k=draw.randint(1, 6)) for _ in range(number)]  # fmt: skip


def test_the_example_of_a_tagger_learns_and_saves_no_language_model(
    trained: Path, tmp_path: Path
) -> None:
    for name, seed, number in (("train", 1, 1200), ("dev", 2, 40)):
        rows = ["\n".join(f"{word} {'AB'[word in ('kana', 'teko')]}" for word in words) for words in sentences(seed, number)]  # fmt: skip
        (tmp_path / name).write_text("\n\n".join(rows) + "\n", encoding="utf-8")

    printed = run(tmp_path, "own_tagger.py", trained / "export", "train", "dev")
    assert float(printed[-1].removeprefix("accuracy: ")) > 0.8
    state = torch.load(tmp_path / "tagger.ckpt", weights_only=True)["state_dict"]
    assert [name for name in state if name.startswith("embedder.")] == [
        "embedder.model_hash",
        "embedder.mixes.0.weights",
        "embedder.mixes.0.gamma",
    ]


def test_the_example_of_scikit_learn_finds_the_label(trained: Path, tmp_path: Path) -> None:
    rows = [f"{' '.join(words)}\t{words[0]}" for words in sentences(3, 120)]
    (tmp_path / "texts.tsv").write_text("\n".join(rows), encoding="utf-8")

    printed = run(tmp_path, "scikit_learn_pipeline.py", trained / "export", "texts.tsv")
    assert printed[0].startswith("best: {'classify__C': ")
    assert float(printed[-1].removeprefix("accuracy: ")) > 0.6
