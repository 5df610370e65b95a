"""A tagger as the settings, labels and tensors of a task folder, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field

from lightning_modules.tasks.features import Features
from lightning_modules.tasks.stored_task import Task, read_task
from lightning_modules.tasks.tagging.config import TagConfig, TaggerConfig
from lightning_modules.tasks.tagging.joining import Joined, are_characters, are_segmented
from lightning_modules.tasks.tagging.lexicon import Lexicon
from lightning_modules.tasks.tagging.spans import Scheme
from lightning_modules.tasks.tagging.tagset import TagSet
from lightning_modules.tasks.tagging.trained import TaggerParts, TrainedTagger
from lightning_modules.tasks.tuning import PREFIX, tuned_model
from lightning_modules.vectors.pretrained import BiLM
from preprocess.reading.labelled.examples import TaggedSentence
from preprocess.reading.labelled.options import TaggedOptions
from preprocess.section import Section
from preprocess.tokenizers.segmentation.segmenters import SegmenterName


class SavedTagger(Section):
    """Everything of a tagger but its tags and its tensors, as it is kept in ``config.json``."""

    settings: TagConfig
    network: TaggerConfig
    read: TaggedOptions
    join: Joined
    segmented: bool
    segmenter: SegmenterName | None = None
    finetuned: bool = False
    has_characters: bool
    scheme: Scheme | None
    file_scheme: Scheme | None
    spelling: dict[str, str]
    depth: int = Field(ge=1)
    dim: int = Field(ge=1)
    words: tuple[str, ...]
    characters: tuple[str, ...]
    repeated: int = Field(ge=0)


@dataclass(frozen=True)
class TaskTagger:
    """A tagger that was read from a task folder.

    Attributes:
        tagger: the tagger.
        join: how the tokens of a sentence become the text that the language model reads.
        read: how the training file was read, and how a plain text is cut into tokens.
        segmented: whether the tokens are words of text without spaces.
        depth: layers of the language model.
        dim: size of a vector in one layer.
        segmenter: finds such words in plain text; None if training named none.
        finetuned: whether the folder has a language model of its own; see `language_model`.
    """

    tagger: TrainedTagger
    join: Joined
    read: TaggedOptions
    segmented: bool
    depth: int
    dim: int
    segmenter: SegmenterName | None = None
    finetuned: bool = False

    def predict(
        self, sentences: Sequence[Sequence[str]], features: Features
    ) -> list[tuple[str, ...]]:
        """Return the tags of non-empty sentences, written as in the training file."""
        assert (features.depth, features.dim) == (self.depth, self.dim)
        return self.tagger.predict(sentences, features)


def to_config(
    tagger: TrainedTagger,
    features: Features,
    join: Joined,
    train: Sequence[TaggedSentence],
    config: TagConfig,
) -> dict[str, Any]:
    """Return the settings of a tagger for its folder, as JSON types.

    Args:
        tagger: the tagger.
        features: its vectors, for their sizes.
        join: how tokens become text.
        train: the training sentences.
        config: the settings of the training. A plain text is cut as the training file was; if nothing
            is set, into characters if the training tokens are characters.
    """
    parts, read = tagger.parts, config.reading
    if read.split == "auto":
        split = "characters" if are_characters(train) else "words"
        read = read.model_copy(update={"split": split})
    saved = SavedTagger(
        settings=config,
        network=parts.config,
        read=read,
        join=join,
        segmented=are_segmented(train),
        segmenter=config.segmenter,
        finetuned=tagger.tuned is not None,
        has_characters=parts.has_characters,
        scheme=parts.tags.scheme,
        file_scheme=parts.tags.file_scheme,
        spelling=dict(parts.tags.spelling),
        depth=features.depth,
        dim=features.dim,
        words=parts.lexicon.words,
        characters=parts.lexicon.characters,
        repeated=parts.lexicon.repeated,
    )
    return saved.model_dump(mode="json")


def read_tagger(path: str) -> Task[SavedTagger]:
    """Read the folder of a tagger; errors as in `read_task`."""
    return read_task(path, "tag", SavedTagger)


def from_task(task: Task[SavedTagger]) -> TaskTagger:
    """Return the tagger of a task folder.

    Raises:
        DamagedResult: the settings, the labels and the tensors of the folder do not fit each other.
    """
    saved = task.config
    lexicon = Lexicon(saved.words, saved.characters, saved.repeated)
    own = task.tensors
    if saved.finetuned:
        own = {name: one for name, one in own.items() if not name.startswith(PREFIX)}
    with task.building():
        tags = TagSet(task.labels, saved.scheme, saved.file_scheme, saved.spelling)
        parts = TaggerParts(saved.network, lexicon, tags, saved.has_characters)
        # Built without memory first, so that a wrong number in the settings cannot ask for much of it.
        with torch.device("meta"):
            expected = parts.network(saved.depth, saved.dim).state_dict()
        task.check_tensors(own, expected)
        network = parts.network(saved.depth, saved.dim)
        network.load_state_dict(own)
    tagger = TrainedTagger(parts, network.eval())
    return TaskTagger(
        tagger,
        saved.join,
        saved.read,
        saved.segmented,
        saved.depth,
        saved.dim,
        saved.segmenter,
        saved.finetuned,
    )


def language_model(task: Task[SavedTagger], tagger: TaskTagger, path: str | None = None) -> BiLM:
    """Return the language model that a tagger reads the vectors of.

    Args:
        task: the task.
        tagger: its tagger.
        path: folder of the language model; None means where it was in training.

    Raises:
        TaskError: the language model is missing or another one.
        DamagedResult: the weights of a tuned language model are not those of a copy of it.
    """
    model = task.load_model(path)
    return tuned_model(task, model).model if tagger.finetuned else model
