"""The batches of a token corpus, for any Lightning Trainer."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl

from lightning_modules.evaluation.held_out import HeldOut
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.heads.adaptive_softmax import AdaptiveSoftmax
from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.nn.inputs.word_types import word_encoder
from lightning_modules.nn.window import Types
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.trainer_settings import share_of
from lightning_modules.training.validation.loader import HeldOutLoader
from lightning_modules.training.validation.sample import HeldOutSample, whole_split
from lightning_modules.training.window_loader import WindowDataset, WindowLoader
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.manifest import read_manifest
from preprocess.reading.mixing import repeat_factors
from preprocess.shards.format import Corpus
from preprocess.shards.held_out_rows import dealt
from preprocess.shards.stream import Int64Ids, TokenStream, boundary_ids
from preprocess.shards.windows import TrainingWindows
from preprocess.tokenizers.load import cached_tokenizer

CPU_BLOCK = 32
"""Rows of held-out text that are computed at once on a CPU: a token takes 64 us with 16 rows, 56 with 32 and
55 with 64 (LSTM 256 / 96). A GPU computes all rows of its rank at once."""


def training_stream(corpus: Corpus, train: TrainConfig) -> TokenStream:
    """Return the endless stream of the train split, in the order of ``train.order``.

    A source is repeated according to its share in the corpus manifest. If a source has no share,
    every source occurs once per pass.
    """
    shards = corpus.shards("train")
    sizes: Counter[str] = Counter()
    for shard in shards:
        sizes[shard.source] += shard.tokens + shard.documents
    rows = {row["name"]: row.get("share") for row in corpus.manifest.details["sources"]}
    shares = {name: rows.get(name) for name in sizes}
    factors: dict[str, float] = {}
    if all(share is not None for share in shares.values()):
        factors = repeat_factors(sizes, {name: float(s) for name, s in shares.items() if s})
    return TokenStream(shards, train.boundary, train.order, train.seed, factors)


def training_windows(
    corpus: Corpus, train: TrainConfig, rows: range, directions: int
) -> TrainingWindows:
    """Return the windows of some rows of the batches.

    Args:
        corpus: the corpus.
        train: settings of the training.
        rows: indices of the rows to read.
        directions: directions of the network.

    Raises:
        CorpusTooSmall: the train split has fewer positions than a batch has rows.
    """
    stream = training_stream(corpus, train)
    return TrainingWindows(stream, train.rows, train.unroll, rows, directions, train.reset_state)


class TokenShardDataModule(pl.LightningDataModule):
    """The batches of a token corpus, for any Trainer of a `LitBiLM`.

    Each rank reads its own part of the rows; rank and number of ranks are those of the Trainer. An
    epoch is one pass over the train split, if the sources are not repeated. Training continues where it
    was, at the start of an epoch and after a checkpoint has been restored.

    Args:
        corpus: folder of the prepare stage, a path or URL, or the corpus itself.
        train: settings of the training, or a dictionary of them.
        tokenizer: folder of the corpus's tokenizer, which a ``char_cnn`` input needs. None means the
            folder ``tokenizer`` beside that of the corpus.
        epoch_windows: windows of an epoch; None means those of a pass.
        sample: what a validation reads of the valid split; None means all of it. A checkpoint replaces
            it.

    Attributes:
        train_config: settings of the training.
        corpus: the corpus.
        held_out: sizes of the valid split.
        sample: what a validation reads of the valid split.
        loader: the loader of the training batches, after `train_dataloader` was called.

    Raises:
        UserError: if the corpus cannot be opened, has fewer tokens than rows, or was prepared with
            another tokenizer; when iterating, if a shard is missing or damaged.
    """

    def __init__(
        self,
        corpus: str | Corpus,
        train: TrainConfig | Mapping[str, Any],
        tokenizer: str | None = None,
        epoch_windows: int | None = None,
        sample: HeldOutSample | None = None,
    ) -> None:
        super().__init__()
        self.train_config = TrainConfig.model_validate(train)
        if isinstance(corpus, str | os.PathLike):
            corpus = Corpus.open(os.fspath(corpus), self.train_config.cache_bytes)
        self.corpus = corpus
        self.held_out = HeldOut.of(corpus.shards("valid"))
        self.sample = sample or whole_split(self.train_config, self.held_out.tokens)
        self._tokenizer = tokenizer
        self._epoch_windows = epoch_windows
        self.loader: WindowLoader | None = None

    def train_dataloader(self) -> WindowLoader:
        """Return the loader of the train split; each item is a `Batch` on the CPU."""
        train, trainer, network = self.train_config, self._trainer(), self._network()
        share = share_of(trainer, train)
        windows = training_windows(self.corpus, train, share.of_rank, network.directions)
        gpu = trainer.strategy.root_device.type == "cuda"
        workers = train.data_workers
        if workers is None:
            # A batch takes 0.1 us per token to make: up to a twentieth of a step on a GPU. On a CPU
            # it is negligible, and a worker would only take time from training.
            workers = int(gpu)
        length = self._epoch_windows
        if length is None:
            accumulated = trainer.accumulate_grad_batches
            length = max(1, windows.stretch // train.unroll // accumulated) * accumulated
        dataset = WindowDataset(windows, self._maker(network), share)
        self.loader = WindowLoader(dataset, length, workers, gpu, self._trained)
        return self.loader

    def val_dataloader(self) -> HeldOutLoader | list[Any]:
        """Return the loader of what a validation reads; an empty list if there is no held-out text."""
        shards, train = self.corpus.shards("valid"), self.train_config
        if not shards and train.depends_on_held_out_loss:
            raise UserError(
                f"{self.corpus.folder} has no held-out text, which is needed for "
                f"{' and '.join(train.held_out_settings)}; prepare it with a larger "
                "prepare.valid_fraction, or do not set this"
            )
        return self._held_out_loader(self.sample) if shards else []

    def whole_loader(self) -> HeldOutLoader:
        """Return the loader of the whole valid split, which must not be empty."""
        return self._held_out_loader(whole_split(self.train_config, self.held_out.tokens))

    def _held_out_loader(self, sample: HeldOutSample) -> HeldOutLoader:
        train, trainer, network = self.train_config, self._trainer(), self._network()
        from_zero, share = bool(train.reset_state), (trainer.global_rank, trainer.world_size)
        stream = TokenStream(self.corpus.shards("valid"), train.boundary)
        rows = sample.rows_of(stream, from_zero)
        on_gpu = trainer.strategy.root_device.type == "cuda"
        blocks = dealt(rows, -(-len(rows) // trainer.world_size) if on_gpu else CPU_BLOCK)
        marks = boundary_ids(train.boundary) if from_zero else None
        return HeldOutLoader(stream, blocks, share, self._maker(network), network.directions, marks)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: what identifies the corpus, and what validations read."""
        return {"corpus": self.corpus.manifest.content, "sample": self.sample.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare the corpus with that of a checkpoint, and let validations read the same as before it.

        Raises:
            UserError: if it is another one.
        """
        own = self.corpus.manifest.content
        if state.get("corpus", own) != own:
            raise UserError(
                f"the checkpoint was trained on another corpus than {self.corpus.folder}; to train its "
                "weights on this one, use LitBiLM.load_from_checkpoint and fit without ckpt_path"
            )
        self.sample = HeldOutSample.of_checkpoint(state.get("sample"))

    def __getstate__(self) -> dict[str, Any]:
        # Like a LightningModule, it is copied and pickled without its Trainer.
        return {**self.__dict__, "trainer": None, "loader": None}

    def _trainer(self) -> pl.Trainer:
        assert self.trainer is not None, "Lightning sets it before it asks for a loader"
        return self.trainer

    def _network(self) -> BiLMNetwork:
        network = getattr(self._trainer().lightning_module, "network", None)
        if not isinstance(network, BiLMNetwork):
            raise UserError(
                "TokenShardDataModule makes batches for a LitBiLM, or for another module whose "
                "attribute `network` is a BiLMNetwork"
            )
        return network

    def _trained(self) -> int | None:
        """Return the number of windows that the module has trained, if it knows."""
        trainer = self._trainer()
        if trainer.overfit_batches:  # type: ignore[attr-defined]
            # The same batches in each epoch.
            windows = getattr(trainer.lightning_module, "windows", 0)
            return int(windows % trainer.num_training_batches)
        return getattr(trainer.lightning_module, "windows", None)

    def _maker(self, network: BiLMNetwork) -> WindowMaker:
        """Return the function that turns ids into the network's input and targets."""
        head = network.head
        ranks = np.arange(network.output_vocabulary)
        if isinstance(head, AdaptiveSoftmax):
            ranks = head.ranks.cpu().numpy()
        return WindowMaker(ranks, head.cutoffs, self._encoder(network))

    def _encoder(self, network: BiLMNetwork) -> Callable[[Int64Ids], Types] | None:
        """Return a function from ids to the spellings of their types, for a character CNN input."""
        if not isinstance(network.input, CharCNN):
            return None
        content = self.corpus.manifest.details["tokenizer"]
        beside = self.corpus.folder.rstrip("/").rpartition("/")[0] or "."
        folder = self._tokenizer or storage.join(beside, "tokenizer")
        if read_manifest(folder, "tokenizer").content != content:
            raise UserError(
                f"{folder} is not the tokenizer that {self.corpus.folder} was prepared with, which spells "
                "words for a char_cnn input; name its folder: TokenShardDataModule(tokenizer=...)"
            )
        tokenizer = cached_tokenizer(folder, content)
        size = network.input.max_characters
        has_teacher = self.train_config.teacher is not None
        return word_encoder(tokenizer.spelling, self.corpus.vocabulary, size, has_teacher)
