"""`biloom tag train`: a tagger on the vectors of a language model."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_modules.tasks.features import Features, features_of
from lightning_modules.tasks.folder import TaskResult, stage_name, write_task
from lightning_modules.tasks.tagging.baseline import MostFrequentTags
from lightning_modules.tasks.tagging.config import TagConfig
from lightning_modules.tasks.tagging.data import SentenceTexts
from lightning_modules.tasks.tagging.evaluation import Evaluation, Tags, evaluate
from lightning_modules.tasks.tagging.joining import are_characters, how_to_join, joined_text
from lightning_modules.tasks.tagging.lexicon import Lexicon
from lightning_modules.tasks.tagging.saved import to_config
from lightning_modules.tasks.tagging.tagset import TagSet
from lightning_modules.tasks.tagging.trained import TaggerParts, TrainedTagger
from lightning_modules.tasks.tagging.training import Sentences, train_tagger
from lightning_modules.tasks.vector_source import open_vectors
from pipeline.commands.tasks.request import check_unchanged, request_of
from pipeline.commands.tasks.tagging.data import (
    JOINING,
    TagError,
    check_tags,
    held_out,
    in_scheme_of,
    read_file,
    tell_repeated,
    tell_segmenter,
    tell_unseen,
    vectors_of,
)
from pipeline.commands.tasks.tagging.tables import (
    MOST_FREQUENT,
    TUNED,
    VECTORS,
    WITH,
    WITHOUT,
    TagTable,
)
from pipeline.config.sections import load_section
from pipeline.console import Console
from pipeline.lifecycle.task_folder import make_task
from pipeline.training.device import resolve_device
from pipeline.version import biloom_version
from preprocess.files import storage
from preprocess.files.fingerprint import fingerprint
from preprocess.files.manifest import Manifest
from preprocess.files.temporary import temporary_root
from preprocess.reading.labelled.examples import TaggedSentence

COMMAND = stage_name("tag")


def tag_train(
    file: str, model: str, out: str, overrides: Sequence[str], overwrite: bool = False
) -> None:
    """Train a tagger, print its scores and those of the baselines, and write its folder.

    Args:
        file: the tagged sentences.
        model: folder or URL of a model or of a vector cache.
        out: folder or URL to write.
        overrides: ``key=value`` settings of `TagConfig`.
        overwrite: move a result that was made with another request aside.

    Raises:
        UserError: a setting, a file or the model is wrong; the message says what to do.
    """
    config = load_section(TagConfig, overrides)
    console = Console()
    console.stage(COMMAND, storage.absolute(out))
    request = request_of("tag", file, model, config)

    def make(work: str) -> Manifest:
        return _Training(file, model, config, console, work, request).run(out)

    make_task(out, request, make, console, overwrite)


@dataclass
class _Training:
    """One run of the command.

    Attributes:
        evaluations: scores of each row of the table.
        speeds: tokens per second of the predictions of a row.
    """

    file: str
    model: str
    config: TagConfig
    console: Console
    work: str
    request: Mapping[str, Any]
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    speeds: dict[str, float] = field(default_factory=dict)

    def run(self, out: str) -> Manifest:
        config, console = self.config, self.console
        source = open_vectors(self.model, config.cache)
        if config.finetune and source.model is None:
            raise TagError(
                f"finetune=true trains the language model, but {self.model} is a vector cache; name the "
                "model folder with --model, and the cache with cache="
            )
        if source.model is not None:
            source.model.to(resolve_device(config.device))
        tags, train, dev = self._sentences()
        check_unchanged(self.request, self.file, config)
        join = how_to_join(config.join, train)
        console.line(JOINING[join])
        tell_segmenter(config.segmenter, train, join, console)
        start = time.monotonic()
        features = vectors_of([*train, *dev], join, source, console)
        self.speeds[VECTORS] = int(features.lengths.sum()) / max(time.monotonic() - start, 1e-9)
        both = (
            Sentences(train, features.subset(range(len(train)))),
            Sentences(dev, features.subset(range(len(train), len(features)))),
        )
        parts = TaggerParts(
            config.network,
            Lexicon.of([sentence.tokens for sentence in train]),
            tags,
            has_characters=not are_characters(train),
        )
        if config.baselines:
            bare = Sentences(train), Sentences(dev)
            self._most_frequent(*bare, tags)
            if parts.has_own_features:
                self._train(WITHOUT, parts, *bare)
        found = self._train(WITH, parts, *both)
        if config.finetune:
            assert source.model is not None, "checked above"
            texts = (
                SentenceTexts(source.model, [joined_text(one, join) for one in part])
                for part in (train, dev)
            )
            both = Sentences(train, next(texts)), Sentences(dev, next(texts))
            found = self._train(TUNED, parts, *both, [tagger for tagger, _ in found])
        tagger, predicted = found[0]
        table = TagTable(
            self.evaluations, self.speeds, len(train), len(dev), config.seeds, config.kept_training
        )
        table.show(console, tagger)
        if config.kept_training:
            console.line(config.kept_training)
        result = TaskResult(
            kind="tag",
            config=to_config(tagger, features, join, train, config),
            labels=tags.tags,
            tensors=tagger.tensors(),
            metrics=table.metrics(tagger),
            columns=("sentence", "token", "tag", "predicted"),
            predictions=[
                (sentence.place, token, tag, found)
                for sentence, row in zip(dev, predicted, strict=True)
                for token, tag, found in zip(sentence.tokens, sentence.tags, row, strict=True)
            ],
            model=source.reference,
            card=table.card(tagger, source.reference),
            bundle=config.bundle,
        )
        return write_task(out, result, self.request, biloom_version())

    def _sentences(self) -> tuple[TagSet, list[TaggedSentence], list[TaggedSentence]]:
        """Return the tags of the training file, the training sentences and the dev sentences."""
        config, console = self.config, self.console
        read = read_file(self.file, config.reading, console)
        tags = TagSet.of(read.report, config.scheme)
        check_tags(self.file, read.sentences, tags)
        train = [*read.sentences]
        if config.dev is None:
            train, dev = held_out(train, config.dev_share, config.seed)
            console.line(
                f"dev: {len(dev):,} of {len(read.sentences):,} sentences of the training file, drawn "
                f"with seed {config.seed}; dev=FILE names another file"
            )
        else:
            dev_file = read_file(config.dev, config.reading, console)
            dev = in_scheme_of(dev_file, tags, config.dev, console)
            tell_repeated(train, dev, console)
        tell_unseen(tags, dev, console)
        return tags, train, dev

    def _most_frequent(self, train: Sentences, dev: Sentences, tags: TagSet) -> None:
        pairs = zip(train.tokens, train.tags, strict=True)
        baseline = MostFrequentTags.of(pairs, tags.scheme is not None)
        found = [baseline.predict(tokens) for tokens in dev.tokens]
        self.evaluations[MOST_FREQUENT] = evaluate(dev.tags, [found], tags.file_scheme)

    def _train(
        self,
        name: str,
        parts: TaggerParts,
        train: Sentences,
        dev: Sentences,
        starts: Sequence[TrainedTagger | None] = (),
    ) -> list[tuple[TrainedTagger, Tags]]:
        """Train with each seed, from the tagger in ``starts`` if there is one.

        Returns:
            Each tagger with its dev predictions.
        """
        config = self.config
        found: list[tuple[TrainedTagger, Tags]] = []
        seeds = range(config.seed, config.seed + config.seeds)
        for seed, first in zip(seeds, starts or [None] * len(seeds), strict=True):
            identity = fingerprint({**self.request, "row": name, "training seed": seed})
            steps = config.train.epochs * -(-len(train.examples) // config.train.batch)
            title = name if config.seeds == 1 else f"{name}, seed {seed}"
            with self.console.bar(title, steps) as bar:
                folder = self._local(identity)
                tagger = train_tagger(
                    parts,
                    train,
                    dev,
                    config.train,
                    folder,
                    seed,
                    config.device,
                    identity,
                    bar,
                    first,
                )
            self.console.line(f"{title}: {tagger.story}")
            start = time.monotonic()
            found.append((tagger, tagger.predict(dev.tokens, self._vectors(tagger, dev))))
            tokens = sum(map(len, dev.tokens))
            self.speeds[name] = tokens / max(time.monotonic() - start, 1e-9)
        runs = [predicted for _, predicted in found]
        self.evaluations[name] = evaluate(dev.tags, runs, parts.tags.file_scheme)
        return found

    def _vectors(self, tagger: TrainedTagger, sentences: Sentences) -> Features | None:
        """Return the vectors that a tagger reads, as `biloom tag predict` computes them."""
        vectors = sentences.vectors
        if not isinstance(vectors, SentenceTexts):
            return vectors
        assert tagger.tuned is not None, "texts are for a language model that is trained"
        model = tagger.tuned.model.to(resolve_device(self.config.device))
        return features_of(model, None, vectors.texts, "word")

    def _local(self, identity: str) -> Path:
        """Return the local folder of the checkpoints of a training, which Lightning writes."""
        name = identity[:16]
        if storage.is_remote(self.work):
            return Path(temporary_root(), f"biloom-tag-{name}")
        return storage.local_path(storage.join(self.work, name))
