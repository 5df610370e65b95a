"""The teacher: what it reads, and models and students that are refused."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork, NoHead
from lightning_modules.nn.inputs.word_types import word_encoder
from lightning_modules.nn.window import Window
from lightning_modules.training.distillation.config import TeacherConfig
from lightning_modules.training.distillation.teacher import Teacher
from lightning_modules.vectors.pretrained import BiLM
from pipeline.cli import main
from preprocess.errors import UserError
from preprocess.files.manifest import read_manifest

Tiny = Any  # of conftest.py
VOCABULARY = 12
WORDS = ["<unk>", "<s>", "</s>", *(chr(97 + n) * (n + 1) for n in range(9))]
SMALL = {"recurrent": {"kind": "gru", "hidden": 4}}
CNN = {
    "kind": "char_cnn",
    "dim": 3,
    "max_characters": 8,
    "filters": [[1, 4], [2, 4]],
    "dropout": 0.5,
}


class Speller:
    """A tokenizer that spells."""

    vocabulary = VOCABULARY

    @staticmethod
    def spelling(token: int) -> str:
        return WORDS[token]


def network(model: dict[str, Any], **options: Any) -> BiLMNetwork:
    torch.manual_seed(2)
    return BiLMNetwork(ModelConfig.model_validate(model), VOCABULARY, **options)


def teacher(model: dict[str, Any] = SMALL, **options: Any) -> Teacher:
    made = network(model, **options).eval()
    loaded: Any = SimpleNamespace(network=made, tokenizer=Speller, content="")
    return Teacher(loaded, "big")


def window(ids: np.ndarray[Any, Any], spelled: int = 0) -> Window:
    """A window of ids, or of spellings of at most so many characters."""
    inputs: Any = torch.from_numpy(ids)
    if spelled:
        inputs = word_encoder(Speller.spelling, VOCABULARY, spelled, with_ids=True)(ids)
    resets = torch.zeros(ids.shape, dtype=torch.bool)
    resets[0, 2, 1] = True
    return Window(inputs, torch.from_numpy(ids), None, resets)


IDS = np.random.default_rng(0).integers(0, VOCABULARY, (2, 5, 3))


@pytest.mark.parametrize("own", [{"kind": "embedding", "dropout": 0.5}, CNN])
@pytest.mark.parametrize("spelled", [0, 8, 20])
def test_it_reads_the_windows_of_a_student_that_reads_ids_or_spellings(
    own: dict[str, Any], spelled: int
) -> None:
    made = teacher(SMALL | {"input": own})
    state = torch.rand(made.network.zero_state(3).shape)
    reads: Window = window(IDS, 8 if own is CNN else 0)
    expected, after = made.network.layers(reads.inputs, state, reads.resets)
    made.network.train()  # no dropout, whatever the mode
    for _ in range(2):  # the second time from kept vectors
        layers, carried = made.layers(window(IDS, spelled), state)
        assert len(layers) == 3
        for ours, theirs in zip((*layers, carried), (*expected, after), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
            assert not ours.requires_grad


def test_the_vectors_of_words_do_not_depend_on_the_windows_before() -> None:
    whole, later = teacher(SMALL | {"input": CNN}), teacher(SMALL | {"input": CNN})
    state = whole.network.zero_state(3)
    whole.layers(window(IDS), state)
    other = IDS[:, ::-1].copy()
    for ours, theirs in zip(
        whole.layers(window(other), state)[0], later.layers(window(other), state)[0], strict=True
    ):
        assert torch.equal(ours, theirs)


def opened(trained: Path, tokenizer: str | None = None, **settings: Any) -> Teacher:
    folder = settings.pop("model", str(trained / "export"))
    own = str(read_manifest(str(trained / "train"), "train").details["tokenizer"])
    boundary = settings.pop("boundary", "eos")
    config = TeacherConfig(model=folder, **settings)
    return Teacher.open(config, tokenizer or own, boundary)


def test_it_is_opened_from_a_model_folder(trained: Path) -> None:
    made = opened(trained)
    theirs = BiLM.from_pretrained(trained / "export").network.state_dict()
    ours = made.network.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    assert not any(weight.requires_grad for weight in made.network.parameters())


def test_a_model_of_another_tokenizer_is_refused(trained: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"^train\.teacher\.model: .*export was trained with another tokenizer than this corpus has, so "
        r"it reads other ids; prepare the corpus with the model's tokenizer: set prepare\.tokenizer to the tok",
    ):
        opened(trained, "another")


def test_a_model_with_a_cut_vocabulary_is_refused(trained: Path, tmp_path: Path) -> None:
    small = str(tmp_path / "small")
    options = ("--vocabulary", "40", "--no-head")
    assert main(["shrink", str(trained / "export"), small, *options]) == 0
    message = (
        r"^train\.teacher\.model: .*small has a vocabulary that no corpus can have, because it was cut .*, "
        r"so it reads other ids; name a model that `biloom train` trained"
    )
    with pytest.raises(UserError, match=message):
        opened(trained, model=small)


def test_a_model_of_another_boundary_is_refused(trained: Path) -> None:
    with pytest.raises(
        UserError, match=r"was trained with train\.boundary=eos; set train\.boundary=eos$"
    ):
        opened(trained, boundary="bos_eos")


def test_no_model_is_refused(trained: Path) -> None:
    with pytest.raises(
        UserError, match=r"^train\.teacher\.model is not set; name the model folder"
    ):
        opened(trained, model=None)


def test_a_folder_without_a_model_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^train\.teacher\.model: .*none holds no finished 'export' \(no manifest"
    ):
        opened(trained, model=str(tmp_path / "none"))
    with pytest.raises(
        UserError, match=r"^train\.teacher\.model: .*train holds a finished 'train', not"
    ):
        opened(trained, model=str(trained / "train"))


def test_a_damaged_model_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "export", tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        opened(trained, model=str(tmp_path / "cut"))
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors"):
        opened(trained, model=str(tmp_path / "cut"))


def changed(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let models have a changed network when they are loaded."""
    load = BiLM.from_pretrained

    def loaded(path: str) -> BiLM:
        model = load(path)
        change(model.network)
        return model

    monkeypatch.setattr(BiLM, "from_pretrained", staticmethod(loaded))


def test_a_model_without_an_output_layer_has_no_predictions(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def behead(network: BiLMNetwork) -> None:
        network.head = NoHead()

    changed(monkeypatch, behead)
    with pytest.raises(
        UserError,
        match=r"export has no output layer, so it predicts nothing; set train\.teacher\.predictions=0, or "
        r"export it again with export\.head=true$",
    ):
        opened(trained)
    opened(trained, predictions=0)


def test_a_model_without_recurrent_layers_is_refused(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flatten(network: BiLMNetwork) -> None:
        network.recurrent.config = network.recurrent.config.model_copy(update={"layers": 0})
        network.recurrent.layers = nn.ModuleList()

    changed(monkeypatch, flatten)
    with pytest.raises(
        UserError, match=r"export has no recurrent layers, so it predicts nothing; name a"
    ):
        opened(trained)


def refused(
    student: dict[str, Any], match: str, of: Teacher | None = None, **settings: Any
) -> None:
    with pytest.raises(UserError, match=match):
        (of or teacher()).check(network(student), TeacherConfig(model="big", **settings))


def test_other_directions_are_refused() -> None:
    forward = SMALL | {"directions": "forward"}
    refused(
        forward,
        r"^model\.directions is forward, but the teacher big has both; set model\.dir.*=both$",
    )
    other = teacher(forward)
    refused(SMALL, r"^model\.directions is both, but the teacher big has forward; set", other)


def test_more_layers_are_refused_if_layers_are_learnt() -> None:
    deep = {"recurrent": {"kind": "gru", "hidden": 4, "layers": 3}}
    refused(
        deep,
        r"^model\.recurrent\.layers is 3, but the teacher big has 2, so some of the student's layers have no "
        r"counterpart; set model\.recurrent\.layers=2, or train\.teacher\.layers=0 to learn from",
    )
    teacher().check(network(deep), TeacherConfig(model="big", layers=0))


def test_another_output_vocabulary_is_refused_if_predictions_are_learnt() -> None:
    few = SMALL | {"output_vocabulary": 7}
    refused(
        few,
        r"^the student predicts 7 ids, but the teacher big predicts 12; set model\.output_vocabulary=12, or "
        r"set train\.teacher\.predictions=0 to learn from layers only$",
    )
    teacher().check(network(few), TeacherConfig(model="big", predictions=0))


def test_a_sampled_softmax_is_refused_if_predictions_are_learnt() -> None:
    sampled: dict[str, Any] = SMALL | {"head": {"kind": "sampled_softmax", "samples": 5}}
    refused(
        sampled,
        r"^model\.head\.kind sampled_softmax computes few of the probabilities in training, so it cannot learn "
        r"from a teacher's predictions; set another model\.head\.kind, or set",
    )
    teacher().check(network(sampled), TeacherConfig(model="big", predictions=0))
    teacher(sampled).check(network(SMALL), TeacherConfig(model="big"))


def test_its_clusters_are_those_of_a_student_that_chooses_them() -> None:
    ranks = torch.arange(VOCABULARY).flip(0)
    made = teacher(cutoffs=(4,), ranks=ranks)
    automatic = ModelConfig.model_validate(SMALL).head
    found = made.clusters(automatic, VOCABULARY)
    assert found is not None
    assert found[0] == (4,)
    assert torch.equal(Tensor(found[1]), ranks)
    assert made.clusters(automatic, VOCABULARY - 1) is None
