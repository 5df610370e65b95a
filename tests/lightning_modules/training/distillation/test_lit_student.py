"""A student in a Trainer: its loss, the teacher's state, checkpoints, and what is not trained or saved."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.window import Window
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.training.distillation.lit_student import LitStudent
from lightning_modules.training.distillation.teacher import Teacher
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.window_loader import Batch
from preprocess.errors import UserError

pytestmark = [
    # Lightning's advice on loaders.
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
]

VOCABULARY, CUTOFFS, ROWS = 30, (10,), 4
BIG = {"recurrent": {"kind": "lstm", "hidden": 12, "projection": 6, "dropout": 0.3}}
SMALL = {"recurrent": {"kind": "lstm", "hidden": 8, "projection": 4}}
STILL = {
    "input": {"kind": "embedding", "dropout": 0},
    "recurrent": {"kind": "lstm", "hidden": 8, "projection": 4, "dropout": 0},
}


def teacher(
    model: dict[str, Any] = BIG, seed: int = 3, cutoffs: tuple[int, ...] = CUTOFFS
) -> Teacher:
    torch.manual_seed(seed)
    network = BiLMNetwork(ModelConfig.model_validate(model), VOCABULARY, cutoffs).eval()
    loaded: Any = SimpleNamespace(network=network, tokenizer=None, content="")
    return Teacher(loaded, "big")


def student(
    model: dict[str, Any] = SMALL,
    settings: dict[str, Any] | None = None,
    of: Teacher | None = None,
    **train: Any,
) -> LitStudent:
    common = {"rows": ROWS, "unroll": 5, "warmup_steps": 0, "compile": "off"}
    common |= {"teacher": settings or {}} | train
    return LitStudent(model, common, VOCABULARY, CUTOFFS, teacher=of or teacher())


def window(number: int, rows: slice = slice(None)) -> Window:
    ids, targets = np.random.default_rng(number).integers(0, VOCABULARY, (2, 2, 5, ROWS))
    make = WindowMaker(np.arange(VOCABULARY), CUTOFFS)
    return make(np.ascontiguousarray(ids[..., rows]), np.ascontiguousarray(targets[..., rows]))


class Batches:
    """Batches of random windows, from the window that the module is at."""

    def __init__(self, made: LitBiLM) -> None:
        self.made = made

    def __len__(self) -> int:
        return 100

    def __iter__(self) -> Iterator[Batch]:
        passes = self.made.train_config.row_passes
        size = ROWS // passes
        for number in range(self.made.windows, self.made.windows + 100):
            parts = [window(number, slice(n * size, (n + 1) * size)) for n in range(passes)]
            yield Batch(number, tuple(parts))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Kept(pl.Callback):
    """Keeps the figures of each step, and saves a checkpoint after one of them."""

    def __init__(self, saved: int = 0, path: Path | None = None) -> None:
        self.figures: list[dict[str, float]] = []
        self.saved, self.path = saved, path

    def on_train_batch_end(self, trainer: pl.Trainer, made: Any, *arguments: Any) -> None:
        if made.figures.is_between_steps:
            self.figures.append(made.figures.to_log())
            if made.step == self.saved and self.path:
                trainer.save_checkpoint(self.path)


def fit(
    made: LitBiLM, steps: int, save: tuple[int, Path] | None = None, resume: Path | None = None
) -> list[dict[str, float]]:
    """Train up to a step; the figures of each step."""
    kept = Kept(*(save or ()))
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[kept], max_steps=steps,
        accumulate_grad_batches=made.train_config.accumulate_steps,
    )  # fmt: skip
    trainer.fit(made, Batches(made), ckpt_path=resume)
    return kept.figures


def test_the_loss_is_the_weighted_sum_and_the_reported_loss_the_cross_entropy() -> None:
    settings = {"layers": 0.7, "predictions": 0.3, "temperature": 2.0}
    made = student(STILL, settings, clip_norm=None)
    plain = LitBiLM(STILL, {"rows": ROWS, "unroll": 5, "compile": "off"}, VOCABULARY, CUTOFFS)
    network, maps = made.network, made.maps
    assert maps is not None
    losses = network.loss(window(0), network.zero_state(ROWS))
    layers, _ = made.teacher.layers(window(0), made.teacher.network.zero_state(ROWS))
    of_layers = maps(losses.layers, layers)
    assert made._predictions is not None
    of_predictions = made._predictions(losses.top, layers[-1], window(0))
    (losses.means.mean() + 0.7 * of_layers + 0.3 * of_predictions).backward()
    norm = torch.nn.utils.get_total_norm([w.grad for w in made.parameters() if w.grad is not None])
    made.zero_grad()

    [figures] = fit(made, 1)
    [without] = fit(plain, 1)
    assert figures["loss_layers"] == pytest.approx(of_layers.item(), rel=1e-6)
    assert figures["loss_predictions"] == pytest.approx(of_predictions.item(), rel=1e-6)
    assert figures["train_loss"] == without["train_loss"]
    assert figures["gradient_norm"] == pytest.approx(float(norm), rel=1e-5)


def test_the_maps_are_trained_and_the_teacher_is_not() -> None:
    made = student()
    before = {name: w.clone() for name, w in made.teacher.network.state_dict().items()}
    assert made.maps is not None
    maps = made.maps.weight.detach().clone()
    first, *_, last = fit(made, 30)

    after = made.teacher.network.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    assert all(w.grad is None for w in made.teacher.network.parameters())
    assert not made.teacher.network.training
    assert not torch.equal(made.maps.weight, maps)
    assert last["loss_layers"] < first["loss_layers"]


def test_neither_weights_nor_modules_of_the_teacher_belong_to_the_student(tmp_path: Path) -> None:
    made = student()
    fit(made, 2, save=(2, tmp_path / "two.ckpt"))
    names = set(made.state_dict())
    assert {name.partition(".")[0] for name in names} == {"network", "maps"}
    assert made.teacher.network not in set(made.modules())
    saved = torch.load(tmp_path / "two.ckpt", weights_only=True)
    assert set(saved["state_dict"]) == names
    assert saved["teacher_state"].shape == made.teacher.network.zero_state(ROWS).shape
    assert saved["teacher_state"].abs().sum() > 0
    [optimizer] = saved["optimizer_states"]
    assert [len(group["params"]) for group in optimizer["param_groups"]] == [
        len(list(made.network.parameters())),
        2,
    ]


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("kind", ["adam", "adagrad", "sgd"])
def test_a_resumed_training_takes_the_same_steps_to_the_bit(
    tmp_path: Path, passes: int, kind: str
) -> None:
    options = {"row_passes": passes, "accumulate_steps": 2, "optimizer": {"kind": kind}}
    whole = student(**options)
    expected = fit(whole, 9, save=(4, tmp_path / "four.ckpt"))
    resumed = student(**options)
    assert fit(resumed, 9, resume=tmp_path / "four.ckpt") == expected[4:]
    assert torch.equal(resumed.teacher_state.of_all_rows(), whole.teacher_state.of_all_rows())
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


def test_the_teachers_state_is_carried_from_window_to_window(tmp_path: Path) -> None:
    made = student(learning_rate=1e-9)
    fit(made, 2, save=(1, tmp_path / "one.ckpt"))
    saved = torch.load(tmp_path / "one.ckpt", weights_only=True)
    saved["teacher_state"].zero_()
    torch.save(saved, tmp_path / "zero.ckpt")
    [carried] = fit(student(learning_rate=1e-9), 2, resume=tmp_path / "one.ckpt")
    [forgotten] = fit(student(learning_rate=1e-9), 2, resume=tmp_path / "zero.ckpt")
    assert carried["train_loss"] == forgotten["train_loss"]
    assert carried["loss_layers"] != forgotten["loss_layers"]


def test_several_passes_over_the_rows_give_the_same_training() -> None:
    whole, parts = fit(student(STILL), 10), fit(student(STILL, row_passes=4), 10)
    for name in ("train_loss", "loss_layers", "loss_predictions", "gradient_norm"):
        ours, theirs = ([row[name] for row in rows] for rows in (parts, whole))
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, err_msg=name)


@pytest.mark.parametrize("passes", [1, 2])
def test_graphs_of_the_student_give_the_same_training(passes: int, captures: Any) -> None:
    expected = fit(student(cuda_graphs="off", row_passes=passes), 4)
    assert captures.count == 0
    assert fit(student(row_passes=passes), 4) == expected
    assert captures.count == 4  # forward and backward of the student's two layers


def test_a_skipped_step_restores_the_teachers_state() -> None:
    class Poison(pl.Callback):
        def on_after_backward(self, trainer: pl.Trainer, made: Any) -> None:
            states.append(made.teacher_state.of_all_rows())
            if made.step == 1:
                next(iter(made.network.parameters())).grad.fill_(float("nan"))

    states: list[torch.Tensor] = []
    made = student()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Poison()], max_steps=2,
    )  # fmt: skip
    trainer.fit(made, Batches(made))
    assert made.figures.skipped == 1
    assert torch.equal(made.teacher_state.of_all_rows(), states[0])
    assert not torch.equal(states[1], states[0])


def test_a_copy_of_the_teacher_has_no_loss_on_layers_and_predictions() -> None:
    same = teacher(STILL)
    made = student(STILL, of=same, learning_rate=1e-12)
    made.network.load_state_dict(same.network.state_dict())
    for row in fit(made, 3):
        assert row["loss_layers"] == pytest.approx(0, abs=1e-9)
        assert row["loss_predictions"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "logged"),
    [
        ({"predictions": 0}, {"loss_layers"}),
        ({"layers": 0}, {"loss_predictions"}),
    ],
)
def test_a_loss_of_weight_0_is_neither_computed_nor_logged(
    settings: dict[str, Any], logged: set[str]
) -> None:
    [figures] = fit(student(settings=settings), 1)
    assert {name for name in figures if name in ("loss_layers", "loss_predictions")} == logged


def test_the_random_numbers_of_the_student_do_not_depend_on_the_teacher() -> None:
    plain = LitBiLM(
        SMALL,
        {"rows": ROWS, "unroll": 5, "warmup_steps": 0, "compile": "off", "learning_rate": 1e-12},
        VOCABULARY,
        CUTOFFS,
    )
    with_it = fit(student(learning_rate=1e-12), 3)
    assert [row["train_loss"] for row in with_it] == [row["train_loss"] for row in fit(plain, 3)]


def test_a_checkpoint_of_another_teacher_is_refused(tmp_path: Path) -> None:
    fit(student(), 1, save=(1, tmp_path / "one.ckpt"))
    other = teacher({"recurrent": {"kind": "lstm", "hidden": 16, "projection": 6}})
    with pytest.raises(
        UserError, match=r"^the checkpoint does not fit .*\(a recurrent state of another teacher\)"
    ):
        fit(student(of=other), 2, resume=tmp_path / "one.ckpt")


def test_a_checkpoint_without_a_teacher_is_refused(tmp_path: Path) -> None:
    common = {"rows": ROWS, "unroll": 5, "compile": "off"}
    fit(LitBiLM(SMALL, common, VOCABULARY, CUTOFFS), 1, save=(1, tmp_path / "one.ckpt"))
    with pytest.raises(UserError, match=r"^the checkpoint does not fit .*\(no 'teacher_state'\)"):
        fit(student(), 2, resume=tmp_path / "one.ckpt")


def test_a_checkpoint_is_loaded_with_the_teacher_and_as_a_model_without_it(tmp_path: Path) -> None:
    made = student()
    fit(made, 2, save=(2, tmp_path / "two.ckpt"))
    loaded = LitStudent.load_from_checkpoint(tmp_path / "two.ckpt", teacher=made.teacher)
    assert loaded.maps is not None
    assert made.maps is not None
    assert torch.equal(loaded.maps.weight, made.maps.weight)
    assert loaded.settings.model is None
    with pytest.warns(UserWarning, match="maps.weight"):
        plain = LitBiLM.load_from_checkpoint(tmp_path / "two.ckpt", strict=False)
    ours, theirs = plain.network.state_dict(), made.network.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


def test_a_student_without_settings_of_a_teacher_is_refused() -> None:
    with pytest.raises(UserError, match=r"^train\.teacher is not set; name the model folder"):
        LitStudent(SMALL, {"rows": ROWS}, VOCABULARY, CUTOFFS, teacher=teacher())


def test_a_model_without_its_teacher_is_not_trained(tiny: Any) -> None:
    told = r"^train\.teacher has no effect in LitBiLM; make the module with LitStudent\.for_corpus"
    train = {"rows": ROWS, "unroll": 5, "compile": "off", "teacher": {}}
    made = LitBiLM(SMALL, train, VOCABULARY, CUTOFFS)
    with pytest.raises(UserError, match=told):
        fit(made, 1)
    with pytest.raises(UserError, match=told):
        LitBiLM.for_corpus(f"{tiny.root}/prepare", SMALL, train)


def test_a_student_for_a_corpus_has_its_teachers_clusters(tiny: Any, trained: Path) -> None:
    train = {"rows": 3, "unroll": 5, "teacher": {"model": str(trained / "export")}}
    made = LitStudent.for_corpus(f"{tiny.root}/prepare", SMALL, train)
    assert made.network.head.cutoffs == (20, 50)
    theirs = made.teacher.network.head.state_dict()["ranks"]
    assert torch.equal(made.network.head.state_dict()["ranks"], theirs)
    other = LitStudent.for_corpus(
        f"{tiny.root}/prepare", SMALL | {"head": {"kind": "softmax"}}, train
    )
    assert other.network.head.cutoffs == ()

    with pytest.raises(UserError, match=r"^train\.teacher is not set; name the model folder"):
        LitStudent.for_corpus(f"{tiny.root}/prepare", SMALL, {"rows": 3})
