"""The examples of one's own tagger and of scikit-learn."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from biloom import BiLM, BiLMEmbedder

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
        "embedder._extra_state",
        "embedder.mixes.0.weights",
        "embedder.mixes.0.gamma",
    ]


class OnTop(pl.LightningModule):
    """A module of a Lightning user."""

    def __init__(self, model: BiLM, trainable: bool) -> None:
        super().__init__()
        self.embedder = BiLMEmbedder(model, trainable=trainable)
        self.top = torch.nn.Linear(model.dim, 1)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        texts, labels = batch
        (vectors,), mask = self.embedder(texts)
        assert len(labels) == len(texts.ids)
        loss: torch.Tensor = self.top(vectors)[mask].square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_lightning_converts_batches_and_models(
    trained: Path, precision: Any, trainable: bool
) -> None:
    model = BiLM.from_pretrained(trained / "export")
    before = model.embed(["kana loko"])[0].vectors
    module = OnTop(model, trainable)
    loader: Any = DataLoader(
        ["kana", "loko mina", ""], 3,
        collate_fn=lambda texts: (module.embedder.batch(texts), torch.zeros(len(texts))),
    )  # fmt: skip
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", precision=precision, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)

    change = np.abs(model.embed(["kana loko"])[0].vectors - before).max()
    assert change > 0.05 if trainable else change < 0.05


def test_the_example_of_scikit_learn_finds_the_label(trained: Path, tmp_path: Path) -> None:
    rows = [f"{' '.join(words)}\t{words[0]}" for words in sentences(3, 120)]
    (tmp_path / "texts.tsv").write_text("\n".join(rows), encoding="utf-8")

    printed = run(tmp_path, "scikit_learn_pipeline.py", trained / "export", "texts.tsv")
    assert printed[0].startswith("best: {'classify__C': ")
    assert float(printed[-1].removeprefix("accuracy: ")) > 0.6
