"""The format of checkpoints, and those of version 0.1."""

from typing import Any

import pytest
import torch

from lightning_modules.training.checkpoint_format import (
    CHECKPOINT_FORMAT,
    check_shapes,
    fits,
    make_resumable,
)
from lightning_modules.training.lit_bilm import LitBiLM
from preprocess.errors import UserError

MODEL = {"recurrent": {"kind": "lstm", "hidden": 8, "projection": 4}}


def former() -> dict[str, Any]:
    return {"format": 2, "step": 10, "optimizer": {"state": {}, "param_groups": []}}


def test_a_checkpoint_of_version_0_1_gets_the_parts_of_lightning() -> None:
    checkpoint = former()
    make_resumable(checkpoint, 3)

    assert (checkpoint["format"], checkpoint["windows"]) == (CHECKPOINT_FORMAT, 30)
    assert checkpoint["global_step"] == 10
    assert checkpoint["optimizer_states"] == [former()["optimizer"]]
    batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]
    assert batches == {"ready": 30, "started": 30, "processed": 30, "completed": 29}
    again = dict(checkpoint)
    make_resumable(checkpoint, 3)
    assert checkpoint == again, "a checkpoint of the current format stays"


@pytest.mark.parametrize(("saved", "number"), [({}, 1), ({"format": 4}, 4)])
def test_a_checkpoint_of_another_format_is_refused(saved: dict[str, Any], number: int) -> None:
    with pytest.raises(
        UserError,
        match=rf"has format {number}, but this version of biloom resumes from formats 2 and 3; use",
    ):
        make_resumable(saved, 1)


def test_a_damaged_checkpoint_of_version_0_1_is_refused() -> None:
    checkpoint = former()
    del checkpoint["optimizer"]
    with pytest.raises(UserError, match=r"^the checkpoint does not fit .* \(no 'optimizer'\)"):
        make_resumable(checkpoint, 1)


def test_weights_and_state_of_other_shapes_are_named() -> None:
    network = LitBiLM(MODEL, {"rows": 4}, 30, (10,)).network
    weights = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    check_shapes({"state_dict": weights, "carried_state": network.zero_state(4)}, network, 4)

    with pytest.raises(ValueError, match="a recurrent state of another shape"):
        check_shapes({"state_dict": weights, "carried_state": network.zero_state(5)}, network, 4)
    weights["network.input.embedding.weight"] = torch.zeros(2)
    with pytest.raises(ValueError, match=r"of other shapes: network\.input\.embedding\.weight$"):
        check_shapes({"state_dict": weights, "carried_state": network.zero_state(4)}, network, 4)


def test_an_error_of_the_user_passes_unchanged() -> None:
    with pytest.raises(UserError, match=r"^as it is$"), fits():
        raise UserError("as it is")
