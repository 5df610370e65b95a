"""Windows made from token ids."""

from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.nn.heads.routes import route
from lightning_modules.nn.window import Types
from lightning_modules.nn.window_maker import WindowMaker, document_resets
from preprocess.shards.stream import boundary_ids
from preprocess.tokenizers.base import BOS, EOS


def test_only_targets_that_cannot_be_predicted_become_unknown() -> None:
    make = WindowMaker(np.arange(6), ())
    ids = np.array([[[3], [7], [5]]])
    window = make(ids, ids)

    assert window.inputs.flatten().tolist() == [3, 7, 5]
    assert window.targets.flatten().tolist() == [3, 0, 5]


def test_resets_are_passed_on() -> None:
    ids, resets = np.array([[[1], [5]]]), np.array([[[True], [False]]])
    make = WindowMaker(np.arange(9), ())

    assert make(ids, ids).resets is None
    window = make(ids, ids, resets)
    assert window.resets is not None
    assert window.resets.tolist() == resets.tolist()


def test_targets_are_routed_by_rank_and_the_encoder_gets_the_ids() -> None:
    ranks, ids = np.array([2, 0, 1, 3]), np.array([[[3], [0], [7]]])
    types = Types((torch.zeros(1, 2),), torch.zeros(1, 3, 1))
    window = WindowMaker(ranks, (1, 3), lambda given: types if given is ids else None)(ids, ids)

    assert window.inputs is types
    assert window.routes is not None
    for parts, expected in zip(
        window.routes, route(np.array([3, 0, 0]), ranks, (1, 3)), strict=True
    ):
        assert all(map(torch.equal, parts, expected))


def test_only_the_id_before_a_document_in_reading_order_is_a_reset() -> None:
    ids = np.array([[[BOS], [7], [EOS]], [[EOS], [BOS], [7]]])
    found = document_resets(ids, boundary_ids("bos_eos"))
    assert found[..., 0].tolist() == [[True, False, False], [True, False, False]]
    assert document_resets(ids[:1], boundary_ids("eos"))[..., 0].tolist() == [[False, False, True]]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(3, 60), max_size=5), min_size=1, max_size=9),
    st.sampled_from(["eos", "bos_eos"]),
)
def test_resets_divide_the_text_of_each_direction_into_documents(
    documents: list[list[int]], boundary: Literal["eos", "bos_eos"]
) -> None:
    before, after = boundary_ids(boundary)
    mirrored = [document[::-1] for document in documents[::-1]]
    # The boundary at the end of the text is a target only, so it is not among the inputs.
    forward = [token for document in documents for token in (before, *document)]
    backward = [token for document in mirrored for token in (after, *document)]
    found = document_resets(np.array([forward, backward])[..., None], (before, after))
    for text, expected, begins in zip(
        (forward, backward), (documents, mirrored), found[..., 0], strict=True
    ):
        bounds = [*np.flatnonzero(begins).tolist(), len(text)]
        assert [text[begin + 1 : end] for begin, end in pairwise(bounds)] == expected
