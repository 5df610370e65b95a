"""Programs of torch.export compute the vectors of `BiLM.forward`, for texts of any number and length."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from biloom import BiLM, export_program
from lightning_modules.portable.errors import PortableError
from lightning_modules.portable.feeds import feeds_of_batch
from lightning_modules.portable.program import Form, input_names
from tests.exportable_models import make_model, texts_of

pytestmark = [
    pytest.mark.slow,
    # torch.export itself warns.
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
]
SHAPES = [(1, 1), (1, 2), (2, 1), (3, 7), (1, 300), (8, 40)]


def inputs(model: BiLM, texts: list[list[str]], form: Form = "text") -> dict[str, Tensor]:
    feeds = feeds_of_batch(model, model.batch(texts, "token"))
    found = {name: torch.from_numpy(value) for name, value in feeds.items()}
    if form == "stream":
        found["begins"] = torch.ones(len(texts), dtype=torch.bool)
        dtype = next(model.network.parameters()).dtype
        found["state"] = model.network.zero_state(len(texts))[:, 0].to(dtype).contiguous()
    return {name: found[name] for name in input_names(model, form)}


def expected(model: BiLM, texts: list[list[str]]) -> Tensor:
    batch = model.batch(texts, "token")
    with torch.no_grad():
        return model(batch.ids, batch.lengths, batch.spellings)


@pytest.mark.parametrize(
    "name", ["tied", "words and characters", "gru", "hgrn2", "sru", "forward", "static"]
)
def test_a_program_computes_all_layers_in_float64(name: str) -> None:
    model = make_model(name, "eos").double()
    run = export_program(model).module()
    for batch, time in SHAPES:
        texts = texts_of(batch, time)
        found, layers = run(*inputs(model, texts).values()), expected(model, texts)
        assert found.dtype == torch.float64
        for row, text in enumerate(texts):
            length = len(text)
            torch.testing.assert_close(
                found[:, row, :length], layers[:, row, :length], rtol=0, atol=1e-12
            )


def test_a_program_leaves_the_model_as_it_is() -> None:
    model = make_model("embedding").train()
    before = {name: weight.clone() for name, weight in model.network.state_dict().items()}
    run = export_program(model).module()
    assert model.training
    assert all(weight.requires_grad for weight in model.network.parameters())
    # Without dropout, though the model was in training mode.
    texts = texts_of(2, 5)
    assert torch.equal(*(run(*inputs(model, texts).values()) for _ in range(2)))
    for name, weight in model.network.state_dict().items():
        assert torch.equal(weight, before[name])


def test_a_saved_program_needs_torch_only(tmp_path: Path) -> None:
    model = make_model("characters")
    texts = texts_of(3, 9)
    torch.export.save(export_program(model), tmp_path / "model.pt2")
    torch.save([*inputs(model, texts).values()], tmp_path / "inputs.pt")
    code = (
        "import sys, torch\n"
        "run = torch.export.load('model.pt2').module()\n"
        "torch.save(run(*torch.load('inputs.pt')), 'layers.pt')\n"
        "assert not {'biloom', 'lightning_modules', 'preprocess'} & {*sys.modules}\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env={"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, layers = torch.load(tmp_path / "layers.pt"), expected(model, texts)
    for row, text in enumerate(texts):
        torch.testing.assert_close(found[:, row, : len(text)], layers[:, row, : len(text)])


@pytest.mark.parametrize("name", ["embedding", "gru", "hgrn2", "sru"])
def test_a_stream_program_reads_texts_in_parts(name: str) -> None:
    model = make_model(name).double()
    texts = texts_of(3, 23)
    layers = expected(model, texts)[..., : model.network.direction_width]
    run = export_program(model, "stream").module()
    given = inputs(model, texts, "stream")
    lengths = given["lengths"].clone()
    state = torch.full_like(given["state"], 7.0)  # is not read, because the texts begin
    start = 0
    for size in (1, 9, 3, 10):
        part = slice(start, start + size)
        given |= {
            "ids": inputs(model, texts)["ids"][:, part],
            "lengths": (lengths - start).clamp(0, size),
            "begins": torch.full((3,), start == 0),
            "state": state,
        }
        found, state = run(*given.values())
        for row, length in enumerate(given["lengths"].tolist()):
            whole = layers[:, row, start : start + length]
            torch.testing.assert_close(found[:, row, :length], whole, rtol=0, atol=1e-12)
        start += size
    for row, text in enumerate(texts):
        tokens = model.reader.read([text])[0].tokens
        with torch.no_grad():
            after = model.encoder.state_after(tokens, model.network.zero_state(1).double())
        torch.testing.assert_close(state[:, row], after[:, 0, 0], rtol=0, atol=1e-12)


def test_a_row_may_begin_another_text() -> None:
    model = make_model("embedding").double()
    run = export_program(model, "stream").module()
    given = inputs(model, texts_of(2, 6), "stream")
    _, state = run(*given.values())
    again, _ = run(*(given | {"begins": torch.tensor([True, False]), "state": state}).values())
    first, _ = run(*given.values())
    assert torch.equal(again[:, 0], first[:, 0])
    assert not torch.equal(again[1:, 1], first[1:, 1])


def test_a_model_without_recurrent_layers_has_no_stream() -> None:
    with pytest.raises(PortableError, match=r"no recurrent layers.*leave --stream out"):
        export_program(make_model("static"), "stream")
