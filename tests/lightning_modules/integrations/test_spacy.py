"""The spaCy component and the tok2vec layer, in pipelines that are saved, loaded and trained."""

import os
import random
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from biloom import BiLM
from preprocess.tokenizers.segmentation.spanned_text import SpannedText

pytestmark = [
    pytest.mark.slow,
    # spaCy's own dependencies.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:spacy.*"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.amp.*"),
]
spacy = pytest.importorskip("spacy")
ROOT = Path(__file__).parents[3]
TEXT = "kana lori,\n\nmi'na  kana"


@pytest.fixture(scope="module")
def folder(trained: Path) -> Path:
    return trained / "export"


def with_vectors(folder: Path, **config: Any) -> Any:
    import lightning_modules.integrations.spacy_factory  # noqa: F401

    nlp = spacy.blank("en")
    nlp.add_pipe("biloom", config={"model": str(folder), **config})
    return nlp


def expected(folder: Path, doc: Any, layers: Any, pooling: Any = None) -> Any:
    """The vectors of a Doc's tokens by their offsets, for tokens that have some."""
    text = SpannedText(doc.text, [(t.idx, t.idx + len(t)) for t in doc])
    model = BiLM.from_pretrained(folder)
    [found] = model.embed([text], layers=layers, unit="word", pooling=pooling)
    return found.vectors


def test_rows_are_the_tokens_of_spacy(pieces: Path) -> None:
    doc = with_vectors(pieces)(TEXT)
    assert [token.text for token in doc] == ["kana", "lori", ",", "\n\n", "mi'na", " ", "kana"]
    assert doc.tensor.shape == (7, 12)
    is_read = [0, 1, 2, 4, 6]
    assert not doc.tensor[[3, 5]].any()
    np.testing.assert_allclose(doc.tensor[is_read], expected(pieces, doc, "mean")[0], atol=1e-6)
    # The model reads the comma without a space before it, as the text has it.
    apart = BiLM.from_pretrained(pieces).embed(
        [["kana", "lori", ",", "mi'na", "kana"]], unit="word"
    )
    assert np.abs(apart[0].vectors.mean(0) - doc.tensor[is_read]).max() > 1e-3


def test_vectors_of_tokens_spans_and_docs(pieces: Path) -> None:
    doc = with_vectors(pieces, layers=[0, -1], pooling="mean")(TEXT)
    layers = expected(pieces, doc, (0, -1), "mean")
    assert doc.tensor.shape == (7, 24)
    np.testing.assert_allclose(doc[1].vector, layers[:, 1].reshape(-1), atol=1e-6)
    np.testing.assert_allclose(doc[0:2].vector, doc.tensor[0:2].mean(0), atol=1e-6)
    np.testing.assert_allclose(doc.vector, doc.tensor.mean(0), atol=1e-6)
    for one in (doc, doc[0:2], doc[1]):
        assert one.vector_norm == pytest.approx(np.linalg.norm(one.vector))
    assert doc[1:2].similarity(doc[1]) == pytest.approx(1)
    assert doc[0].similarity(doc[3]) == 0
    assert (doc[0].has_vector, doc[3].has_vector) == (True, False)
    assert not doc[2:2].vector.any()
    top = with_vectors(pieces, layers=-1)(TEXT)
    assert np.array_equal(top.tensor, with_vectors(pieces, layers="top")(TEXT).tensor)
    with pytest.raises(ValueError, match="device: the model cannot be moved to 'nonsense'"):
        with_vectors(pieces, device="nonsense")(TEXT)


def test_batches_give_the_vectors_of_single_texts(folder: Path) -> None:
    nlp = with_vectors(folder)
    texts = ["kana lori", "", "\n", "lori " * 40, "kana"]
    for doc, text in zip(nlp.pipe(texts, batch_size=2), texts, strict=True):
        np.testing.assert_allclose(doc.tensor, nlp(text).tensor, atol=1e-5)
        assert len(doc.tensor) == len(doc)


def test_a_pipeline_is_saved_with_and_without_its_model(pieces: Path, tmp_path: Path) -> None:
    moved = tmp_path / "model"
    shutil.copytree(pieces, moved)
    plain, bundled = with_vectors(moved), with_vectors(moved, bundle=True)
    tensor = plain(TEXT).tensor
    plain.to_disk(tmp_path / "plain")
    bundled.to_disk(tmp_path / "bundled")
    assert np.array_equal(spacy.load(tmp_path / "plain")(TEXT).tensor, tensor)
    copy = spacy.blank("en")
    copy.add_pipe("biloom", config={"model": str(moved)})
    assert np.array_equal(copy.from_bytes(plain.to_bytes())(TEXT).tensor, tensor)

    shutil.rmtree(moved)
    loaded = spacy.load(tmp_path / "bundled")
    assert np.array_equal(loaded(TEXT).tensor, tensor)
    loaded.to_disk(tmp_path / "again")
    assert np.array_equal(spacy.load(tmp_path / "again")(TEXT).tensor, tensor)
    with pytest.raises(
        ValueError, match=r"holds no finished 'export'.*the pipeline was saved without"
    ):
        spacy.load(tmp_path / "plain")
    other = {"components": {"biloom": {"model": str(pieces)}}}
    assert np.array_equal(spacy.load(tmp_path / "plain", config=other)(TEXT).tensor, tensor)


def test_a_model_of_the_hub_is_bundled(
    pieces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as hub:
        hub.setattr("lightning_modules.vectors.pretrained.local_folder", lambda *_: str(pieces))
        with_vectors(Path("org/name"), bundle=True).to_disk(tmp_path)
    assert len(spacy.load(tmp_path)(TEXT).tensor) == 7


def test_another_model_is_refused(pieces: Path, folder: Path, tmp_path: Path) -> None:
    with_vectors(pieces).to_disk(tmp_path)
    other = {"components": {"biloom": {"model": str(folder)}}}
    with pytest.raises(
        ValueError, match=r"holds the model \w{12}, but the pipeline was saved with \w{12}"
    ):
        spacy.load(tmp_path, config=other)


TRAIN = """
[paths]
train = null
dev = null
[nlp]
lang = "en"
pipeline = ["tok2vec","textcat"]
[components]
[components.tok2vec]
factory = "tok2vec"
[components.tok2vec.model]
@architectures = "biloom.Tok2Vec.v1"
model = "MODEL"
width = 16
trainable = false
[components.textcat]
factory = "textcat"
[components.textcat.model]
@architectures = "spacy.TextCatReduce.v1"
exclusive_classes = true
use_reduce_first = false
use_reduce_last = false
use_reduce_max = true
use_reduce_mean = true
[components.textcat.model.tok2vec]
@architectures = "spacy.Tok2VecListener.v1"
width = ${components.tok2vec.model.width}
[corpora]
[corpora.train]
@readers = "spacy.Corpus.v1"
path = ${paths.train}
[corpora.dev]
@readers = "spacy.Corpus.v1"
path = ${paths.dev}
[training]
max_steps = 60
eval_frequency = 20
[training.optimizer]
@optimizers = "Adam.v1"
learn_rate = 0.02
[training.batcher]
@batchers = "spacy.batch_by_words.v1"
size = 200
[training.score_weights]
cats_macro_auc = 1.0
[initialize]
"""


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Texts whose label says whether they have the word "kana"."""
    draw, path = random.Random(5), tmp_path_factory.mktemp("corpora")
    nlp, words = spacy.blank("en"), ["lori", "mina", "nuko", "teri"]
    for name, number in (("train", 120), ("dev", 60)):
        docs = spacy.tokens.DocBin(store_user_data=True)
        for index in range(number):
            text = draw.choices(words, k=6)
            if index % 2:
                text[draw.randrange(6)] = "kana"
            doc = nlp(" ".join(text))
            doc.cats = {"yes": float(index % 2), "no": float(1 - index % 2)}
            docs.add(doc)
        docs.to_disk(path / f"{name}.spacy")
    return {f"paths.{name}": f"{path}/{name}.spacy" for name in ("train", "dev")}


@pytest.mark.parametrize("trainable", [False, True])
def test_a_classifier_is_trained_on_the_layer(
    trainable: bool, folder: Path, corpora: dict[str, str], tmp_path: Path
) -> None:
    from spacy.cli.train import train

    import lightning_modules.integrations.spacy_tok2vec  # noqa: F401

    config = tmp_path / "config.cfg"
    # As `spacy init fill-config` does.
    partial = spacy.Config().from_str(TRAIN.replace("MODEL", str(folder)), interpolate=False)
    spacy.util.load_model_from_config(partial, auto_fill=True).config.to_disk(config)
    before = {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    overrides = {**corpora, "components.tok2vec.model.trainable": trainable}
    train(config, tmp_path / "out", overrides=overrides)

    nlp = spacy.load(tmp_path / "out/model-last")
    scores = nlp.evaluate([*spacy.training.Corpus(corpora["paths.dev"])(nlp)])
    assert scores["cats_macro_auc"] > 0.9
    untrained = BiLM.from_pretrained(folder).network.state_dict()
    [layer] = [
        shim._model
        for node in nlp.get_pipe("tok2vec").model.walk() for shim in node.shims
    ]  # fmt: skip
    changed = {
        name
        for name, tensor in layer.embedder.model.network.state_dict().items()
        if not np.array_equal(tensor, untrained[name])
    }
    assert bool(changed) is trainable
    assert "mixes" in "".join(layer.state_dict())
    assert ("trained_model" in "".join(layer.state_dict())) is trainable
    assert before == {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_loss_falls_and_gradients_reach_the_language_model(folder: Path) -> None:
    import lightning_modules.integrations.spacy_tok2vec  # noqa: F401

    nlp = spacy.blank("en")
    layer = {"@architectures": "biloom.Tok2Vec.v1", "model": str(folder), "trainable": True}
    nlp.add_pipe(
        "tagger", config={"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": layer}}
    )
    texts = ["kana lori kana", "lori mina", "mina kana"]
    examples = [
        spacy.training.Example.from_dict(nlp.make_doc(t), {"tags": [w[0] for w in t.split()]})
        for t in texts
    ]
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 0.03
    losses = [nlp.update(examples, sgd=optimizer)["tagger"] for _ in range(30)]
    assert losses[-1] < losses[0] / 3
    assert [token.tag_ for token in nlp(texts[0])] == ["k", "l", "k"]
    copy = spacy.blank("en")
    copy.add_pipe(
        "tagger", config={"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": layer}}
    )
    copy.initialize(lambda: examples)
    copy.from_bytes(nlp.to_bytes())
    assert [token.tag_ for token in copy(texts[2])] == ["m", "k"]


def test_a_width_below_one_is_told(folder: Path) -> None:
    from lightning_modules.integrations.spacy_tok2vec import make_tok2vec

    with pytest.raises(ValueError, match="width: 0 is too small; write 1 or more, or null"):
        make_tok2vec(str(folder), width=0)


def test_entry_points_are_found_without_an_import(folder: Path, tmp_path: Path) -> None:
    """As after an installation of this version."""
    made = with_vectors(folder)
    made.to_disk(tmp_path / "pipeline")
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    info = tmp_path / "site/biloom_test-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: biloom-test\nVersion: 1\n")
    lines = [
        line
        for group, names in points.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in names.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    script = (
        "import spacy; nlp = spacy.load('pipeline'); print(nlp('kana lori').tensor.shape[0])\n"
        "print(spacy.registry.architectures.get('biloom.Tok2Vec.v1').__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], cwd=tmp_path, capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": f"{tmp_path}/site:{ROOT}"},
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("2\nmake_tok2vec\n", 0), done.stderr


def test_the_example_runs(folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", ROOT / "examples/spacy_pipeline.py", folder],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "7 tokens, vectors (7, 8), n't: (8,)"
    # Its words are unknown to this model, which therefore tells only their places.
    losses = [float(line.partition("loss ")[2].partition(":")[0]) for line in lines[2:]]
    assert losses[-1] < losses[0]
