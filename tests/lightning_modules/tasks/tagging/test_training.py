"""Training a tagger, and its predictions."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_modules.tasks.tagging import data
from lightning_modules.tasks.tagging.data import TagDataError
from lightning_modules.tasks.tagging.evaluation import evaluate
from lightning_modules.tasks.tagging.trained import TaggerParts, TrainedTagger
from lightning_modules.tasks.tagging.training import Sentences, train_tagger
from tests.lightning_modules.tasks.tagging.toys import FIT, FakeFeatures, sentences

SHORT = FIT.model_copy(update={"epochs": 2})


def predicted(tagger: TrainedTagger, chosen: Sentences) -> list[tuple[str, ...]]:
    return tagger.predict(chosen.tokens, chosen.vectors)


def test_a_simple_task_is_learned(tagger: TrainedTagger, dev: Sentences) -> None:
    found = evaluate(dev.tags, [predicted(tagger, dev)], "IOB1", resamples=20)
    assert found.scores["f1"].value > 0.95
    assert {*found.by_label} == {"PER", "LOC"}
    assert "dev score" in tagger.story or "the limit" in tagger.story


def test_predictions_are_in_the_scheme_of_the_file(tagger: TrainedTagger, dev: Sentences) -> None:
    found = {tag for tags in predicted(tagger, dev) for tag in tags}
    assert found <= {"O", "I-PER", "B-PER", "I-LOC", "B-LOC"}


def test_a_prediction_depends_on_its_sentence_only(tagger: TrainedTagger, dev: Sentences) -> None:
    together = predicted(tagger, dev)
    for number, one in enumerate(dev.examples):
        alone = tagger.predict([one.tokens], FakeFeatures([one.tokens]))  # type: ignore[arg-type]
        assert alone == [together[number]]
    backwards = [one.tokens for one in dev.examples[::-1]]
    assert tagger.predict(backwards, FakeFeatures(backwards)) == together[::-1]  # type: ignore[arg-type]


def test_emissions_do_not_depend_on_the_batch(tagger: TrainedTagger, dev: Sentences) -> None:
    batches = tagger.parts.data(dev.tokens, dev.vectors)
    together = tagger.network(batches[[0, 1, 2, 3]])
    for row in range(4):
        length = int(batches.lengths[row])
        alone = tagger.network(batches[[row]])
        torch.testing.assert_close(together[row, :length], alone[0], rtol=1e-5, atol=1e-5)


def test_the_same_seed_gives_the_same_tagger(
    parts: TaggerParts, train: Sentences, dev: Sentences, tmp_path: Path
) -> None:
    one, same, other = (
        train_tagger(parts, train, dev, SHORT, tmp_path / str(number), seed, "cpu").tensors()
        for number, seed in enumerate((5, 5, 6))
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_tagger_without_vectors_has_no_mix(
    parts: TaggerParts, train: Sentences, dev: Sentences, tmp_path: Path
) -> None:
    bare = (Sentences(train.examples), Sentences(dev.examples))
    tagger = train_tagger(parts, *bare, SHORT, tmp_path, 1, "cpu")
    assert tagger.layer_shares == []
    assert not any(name.startswith("mix") for name in tagger.tensors())
    assert len(predicted(tagger, bare[1])) == len(dev.examples)


def test_the_mix_is_learned(tagger: TrainedTagger) -> None:
    shares = tagger.layer_shares
    assert sum(shares) == pytest.approx(1)
    assert max(shares) - min(shares) > 1e-3


def test_a_long_sentence_is_cut_into_pieces(
    tagger: TrainedTagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "PIECE", 5)
    tokens = [token for one in sentences(6, 9) for token in one.tokens]
    [found] = tagger.predict([tokens], FakeFeatures([tokens]))  # type: ignore[arg-type]
    assert len(found) == len(tokens) > 20
    pieces = [tokens[start : start + 5] for start in range(0, len(tokens), 5)]
    alone = tagger.predict(pieces, FakeFeatures(pieces))  # type: ignore[arg-type]
    assert [*found] == [tag for tags in alone for tag in tags]


def test_vectors_of_other_tokens_are_refused(tagger: TrainedTagger, dev: Sentences) -> None:
    assert dev.vectors is not None
    with pytest.raises(TagDataError, match=r"has 3 tokens, but .* vectors; make the vector cache"):
        tagger.predict([["one", "two", "three"]], dev.vectors)


def test_a_sentence_without_vectors_is_tagged(tagger: TrainedTagger) -> None:
    class Blank(FakeFeatures):
        def __getitem__(self, index: int):  # type: ignore[no-untyped-def]
            return super().__getitem__(index)[:, :0]

    [found] = tagger.predict([["\u3000"]], Blank([["\u3000"]]))  # type: ignore[arg-type]
    assert len(found) == 1


def test_labels_that_only_dev_sentences_have_do_not_stop_a_training(
    parts: TaggerParts, train: Sentences, dev: Sentences, tmp_path: Path
) -> None:
    changed = [replace(one, tags=("I-NEW", *one.tags[1:])) for one in dev.examples]
    tagger = train_tagger(parts, train, Sentences(changed, dev.vectors), SHORT, tmp_path, 1, "cpu")
    assert tagger.result is not None
