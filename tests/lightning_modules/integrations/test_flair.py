"""The embedding for flair; skipped where flair is not installed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from biloom import BiLM
from preprocess.tokenizers.segmentation.spanned_text import SpannedText

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def data() -> object:
    return pytest.importorskip("flair.data", reason="flair is not installed: pip install flair")


def test_tokens_have_the_vectors_of_their_characters(data: object, pieces: Path) -> None:
    from lightning_modules.integrations.flair_embeddings import BiLMEmbeddings

    embeddings = BiLMEmbeddings(str(pieces), layers=[0, -1])
    sentences = [data.Sentence("kana (lori)!"), data.Sentence("mina")]  # type: ignore[attr-defined]
    embeddings.embed(sentences)
    model = BiLM.from_pretrained(pieces)
    for sentence in sentences:
        ends = [(token.start_position, token.end_position) for token in sentence]
        text = SpannedText(sentence.to_original_text(), ends)
        [found] = model.embed([text], layers=(0, -1), unit="word")
        rows = torch.stack([token.embedding for token in sentence]).numpy()
        assert rows.shape == (len(sentence), embeddings.embedding_length)
        joined = found.vectors.transpose(1, 0, 2).reshape(len(rows), -1)
        np.testing.assert_allclose(rows, joined, atol=1e-5)
    again = BiLMEmbeddings.load_embedding(embeddings.save_embeddings())
    assert again.embedding_length == embeddings.embedding_length
    assert BiLMEmbeddings(str(pieces), layers=-1).embedding_length == model.dim
    with pytest.raises(ValueError, match="this model has no layer 7"):
        BiLMEmbeddings(str(pieces), layers=7)


def test_a_tagger_is_trained_on_them(data: object, pieces: Path, tmp_path: Path) -> None:
    from flair.datasets import FlairDatapointDataset
    from flair.models import SequenceTagger
    from flair.trainers import ModelTrainer

    from lightning_modules.integrations.flair_embeddings import BiLMEmbeddings

    def sentence(text: str) -> object:
        made = data.Sentence(text)  # type: ignore[attr-defined]
        for token in made:
            token.add_label("first", token.text[0])
        return made

    texts = ["kana lori mina", "lori kana", "mina mina kana lori"] * 6
    dataset = FlairDatapointDataset([sentence(text) for text in texts])
    corpus = data.Corpus(dataset, dataset, dataset, sample_missing_splits=False)  # type: ignore[attr-defined]
    tagger = SequenceTagger(
        BiLMEmbeddings(str(pieces)), corpus.make_label_dictionary("first"), "first",
        use_rnn=False, use_crf=False, reproject_embeddings=False,
    )  # fmt: skip
    trainer = ModelTrainer(tagger, corpus)
    trainer.train(tmp_path, learning_rate=0.5, max_epochs=15, mini_batch_size=6)
    loaded = SequenceTagger.load(tmp_path / "final-model.pt")
    new = data.Sentence("mina kana")  # type: ignore[attr-defined]
    loaded.predict(new)
    assert [token.get_label("first").value for token in new] == ["m", "k"]
