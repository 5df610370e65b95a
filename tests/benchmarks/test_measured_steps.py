"""Steps of a small training, timed and profiled on a CPU."""

import pytest
import pytorch_lightning as pl
import torch
from elmo_size import RandomText, clusters, make_corpus, model_of, train_of, types_read
from measured_steps import PROFILED, WARM, Steps, events_by_part
from step_counter import PARTS

from lightning_modules.training.lit_bilm import LitBiLM

CPU, ROWS, TIMED, VOCABULARY = torch.device("cpu"), 4, 2, 5000
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    folder = tmp_path_factory.mktemp("corpus") / "prepare"
    make_corpus(folder, VOCABULARY, 10_000)
    train = train_of(ROWS, steps=WARM + TIMED + PROFILED, compile="off")
    module = LitBiLM(model_of(small=True), train, VOCABULARY, clusters(ROWS, small=True))
    data = RandomText(str(folder), train, epoch_windows=train.steps)
    steps = Steps(TIMED, CPU, data)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, max_steps=train.steps, limit_val_batches=0, logger=False,
        callbacks=[steps], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    assert module.step == train.steps
    # The module is as it was before it was marked.
    assert "forward" not in vars(module.network.recurrent)
    assert "training_step" not in vars(module)
    return steps


def test_all_parts_are_found_and_are_all_of_the_time(measured: Steps) -> None:
    assert measured.parts.keys() == set(PARTS)
    assert all(seconds > 0 for seconds in measured.parts.values())
    events = measured._profile.events()
    total = sum(event.self_cpu_time_total for event in events) / 1e6
    assert sum(measured.parts.values()) * PROFILED == pytest.approx(total)
    assert 0 <= measured.waited < measured.seconds
    found = types_read(measured.window)
    assert 0 < found.per_token < 2
    assert found.length > 4


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        ("_Convolution", "CNN forward"),
        ("_ConvolutionBackward", "CNN backward"),
        ("Recurrence", "LSTM forward"),
        ("RecurrenceBackward", "LSTM backward"),
        ("_Kept", "head forward"),
        ("_KeptBackward", "head backward"),
        ("aten::_fused_adam_", "optimiser"),
        ("aten::tanh_", "cells"),
    ],
)
def test_an_operation_belongs_to_its_part(measured: Steps, operation: str, part: str) -> None:
    found = {name for event, name in events_by_part(measured._profile) if event.name == operation}
    assert found == {part}
