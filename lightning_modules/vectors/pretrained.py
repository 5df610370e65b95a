"""A trained bidirectional language model that turns texts into contextual vectors."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lightning_modules.config import MixConfig
from lightning_modules.models.hub import HubModel, local_folder
from lightning_modules.models.model_folder import ModelError, load_network
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.nn.scalar_mix import ScalarMix
from lightning_modules.vectors.batches import plan_batches, text_windows, window_characters
from lightning_modules.vectors.gradients import GradientEncoder
from lightning_modules.vectors.scratch import allocate
from lightning_modules.vectors.selection import (
    Embedding,
    GradientPath,
    Kind,
    Layers,
    Pooling,
    Selection,
    Text,
    Unit,
    layers_of,
    mix_config,
    units_of,
)
from lightning_modules.vectors.sentences import SentenceEncoding
from lightning_modules.vectors.streams import put
from lightning_modules.vectors.text_batch import TensorForward, TextBatch, text_batch
from lightning_modules.vectors.type_vectors import Advance, TypeVectors, speller_of
from preprocess.errors import UserError
from preprocess.files.manifest import read_manifest
from preprocess.shards.stream import boundary_ids
from preprocess.text.cleaning import Cleaner
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.aligned_text import TextAligner, Tokenised
from preprocess.tokenizers.load import Tokenizer, load_tokenizer
from preprocess.tokenizers.spellings import Spellings


class WarmUpError(UserError):
    """Raised if a warm-up is requested from a model that has no warm-up text."""


class BiLM(HubModel, TensorForward, SentenceEncoding):
    """A trained bidirectional language model.

    Each text is read from the zero state, after the boundary token that training put before a
    document. Its vectors therefore depend on the text only: to the bit in batches of the same shape,
    and within 1e-5 in any other batch. A model that reads words by their spelling also has vectors
    for words outside its vocabulary.

    The model can be a part of another module. `embed`, `iter_embed`, `embed_selection`, `encode` and
    `score_texts` apply no dropout whatever its mode (`train`, `eval`), read the present weights, are
    not affected by autocast, and may be called from several threads. `forward` is for training: it
    follows the mode and autocast as any torch module does. A new model is in evaluation mode.
    After `to(torch.bfloat16)`, `half()` or `double()`, it computes in that dtype; vectors stay float32.

    Example:
        >>> model = BiLM.from_pretrained("runs/quickstart/export")
        >>> [first, second] = model.embed(["A first text.", ["A", "second", "one"]], unit="word")
        >>> second.vectors.shape  # (layers, words, dim)
        (3, 3, 192)

    Args:
        network: the network; the model is set to evaluation mode.
        tokenizer: the tokenizer of the training corpus.
        cleaning: the cleaning of the training corpus.
        boundary: the boundary tokens of training, as in ``train.boundary``.
        content: content hash of the model folder.
        tokenizer_content: content hash of the tokenizer.
        warm_up: text that can be read before each text.
        type_vectors: precomputed vectors of the tokenizer's ids, (vocabulary, width) float32, for a
            model that reads words by their spelling.

    Attributes:
        dim: size of a token's vector in each layer: the forward half, then the backward half. A
            forward language model has the forward half only.
        depth: number of layers, including layer 0, the input of the recurrent stack.
        tokenizer, content, tokenizer_content, warm_up: the arguments.
        matmul_dtype: dtype of matrix products except in `forward`, such as torch.bfloat16; None (default)
            means that of the weights.
    """

    def __init__(
        self,
        network: BiLMNetwork,
        tokenizer: Tokenizer,
        cleaning: CleaningConfig,
        boundary: Literal["eos", "bos_eos"],
        content: str = "",
        tokenizer_content: str = "",
        warm_up: str | None = None,
        type_vectors: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.content, self.tokenizer_content = content, tokenizer_content
        self.warm_up = warm_up
        self.starts = boundary_ids(boundary)
        self.reader = TextAligner(Cleaner(cleaning), tokenizer)
        self.dim = network.width
        self.depth = network.recurrent.config.layers + 1
        self._spellings: Spellings | None = None
        self._types: TypeVectors | None = None
        if isinstance(network.input, CharCNN):
            speller = speller_of(network.input, tokenizer)
            self._spellings = Spellings(
                tokenizer.spelling, tokenizer.vocabulary, network.input.max_characters, speller
            )
            self._types = TypeVectors(network.input, type_vectors, speller=speller)
        self.eval()

    @classmethod
    def from_pretrained(cls, path: str | Path, revision: str | None = None) -> Self:
        """Load a model that `biloom export` wrote.

        Args:
            path: model folder, a local path or an fsspec URL; or a repository of the Hugging Face hub,
                such as "org/name".
            revision: branch, tag or commit of the repository.

        Returns:
            The model on the CPU, in evaluation mode. Call ``to("cuda")`` to run it on a GPU.

        Raises:
            ManifestError: if the folder holds no finished model, or one of a newer format.
            ModelError: if a file of the model is missing or damaged, does not fit the others, or holds
                NaN or infinity.
            TokenizerError: if the tokenizer is missing or damaged.
            HubError: if there is neither a folder nor a repository with a model.
        """
        path = local_folder(str(path), revision)
        content = read_manifest(path, "export").content
        network, saved, type_vectors = load_network(path)
        cleaning = CleaningConfig.model_validate(saved["cleaning"])
        tokenizer = load_tokenizer(path)
        if tokenizer.vocabulary != saved["vocabulary"]:
            raise ModelError(
                f"{path}: the tokenizer has {tokenizer.vocabulary:,} ids, but config.json says "
                f"{saved['vocabulary']:,}; both must be of one model, make it again with "
                "`biloom export --overwrite`"
            )
        model = cls(
            network,
            tokenizer,
            cleaning,
            saved["boundary"],
            content,
            saved.get("tokenizer", ""),
            saved.get("warm_up"),
            type_vectors,
        )
        model.folder = path
        return model

    def batch(
        self, texts: Sequence[Text], unit: Unit = "word", segmenter: str | None = None
    ) -> TextBatch:
        """Return texts as padded tensors on the CPU, with the tokens of each unit.

        Args:
            texts: strings, or lists of words. They are cleaned as the training corpus was.
            unit: what gets a vector: each "token", each "word" or the whole text ("sentence").
            segmenter: as in `embed`.

        Raises:
            TypeError: if ``texts`` is one string, or a text is neither a string nor a list of words.
            SegmenterError: if the segmenter is unknown or not installed.

        Warns:
            UserWarning: as `embed`.

        Example:
            >>> batch = model.batch(["A first text.", "A second."]).to("cuda")
            >>> layers = model(batch.ids, batch.lengths, batch.spellings)
            >>> words = batch.pool(layers)  # (depth, batch, words, dim)
        """
        longest = None if self._spellings is None else self._spellings.max_characters
        read = self.reader.read(texts, segmenter)
        self.reader.warn_of_no_spaces([unit == "word" and text.lacks_spaces for text in read])
        return text_batch(read, unit, self.tokenizer.vocabulary, self.ids_content, longest)

    def embed(
        self,
        texts: Sequence[Text],
        batch_tokens: int = 8192,
        *,
        layers: Layers | Sequence[int] | int = "all",
        unit: Unit = "token",
        pooling: Pooling | None = None,
        mix: MixConfig | ScalarMix | None = None,
        warm_up: bool = False,
        memory_bytes: int = 1 << 28,
        segmenter: str | None = None,
        kind: Kind = "vector",
        path: GradientPath = "total",
    ) -> list[Embedding]:
        """Return the vectors of each text, in order, without gradients.

        Texts are cleaned as the training corpus was.

        Args:
            texts: strings, or lists of words.
            batch_tokens: tokens per batch. A longer text is a batch by itself.
            layers: "all", "top", "mean" (their average), "mix" (their weighted sum), "concat" (all
                layers in one vector), or an index or indices: 0 is the input, -1 the top layer.
            unit: what has a vector: each "token", each "word", or the whole text ("sentence"). The
                words of a string are separated by whitespace, or found by ``segmenter``.
            pooling: how the vectors of several tokens become the vector of a word or a text.
                "direction" takes the forward half at the last token and the backward half at the
                first, because there each direction has read the whole unit. "mean", "first" and
                "last" take both halves from these tokens. None means "direction" for words and "mean" for
                texts. In a static model, "direction" is "mean".
            mix: weights and gamma of ``layers="mix"``. None means equal weights and gamma 1.
            warm_up: start from the state after the model's warm-up text, not from the zero state.
            memory_bytes: vectors of a text that need more bytes are kept in a temporary file in
                ``TMPDIR``.
            segmenter: "jieba" (Chinese), "fugashi" (Japanese) or "pythainlp" (Thai), to find the words
                of strings for ``unit="word"``. Each is an optional package.
            kind: "vector", or "gradient": the gradient of the text's loss with respect to each
                vector, in its place and shape, see `lightning_modules.vectors.gradients`.
            path: "total" also counts what a vector changes through the next steps of its own layer;
                "upward" counts the layers above only. Ignored for vectors.

        Returns:
            One `Embedding` per text. A text without tokens has vectors of shape (layers, 0, dim).

        Raises:
            TypeError: if ``texts`` is one string, or a text is neither a string nor a list of words.
            SelectionError: if the model has no such layer, or another number of layers than ``mix``
                has weights; if gradients are wanted and the model has no output layer.
            WarmUpError: if the model has no warm-up text.
            SegmenterError: if the segmenter is unknown or not installed.
            ScratchError: if the disk has no room for a temporary file.
            VectorError: if the model computes NaN or infinity.

        Warns:
            UserWarning: once for a model, if texts have no spaces between the words that were asked
                for.
        """
        chosen = layers_of(layers)
        selection = Selection(
            chosen, unit, pooling, mix_config(mix), segmenter=segmenter, kind=kind, path=path
        )
        found = self.embed_selection(texts, selection, batch_tokens, warm_up, memory_bytes)
        self.reader.warn_of_no_spaces([one.lacks_spaces for one in found])
        return found

    def iter_embed(
        self, texts: Iterable[Text], batch_tokens: int = 8192, **options: Any
    ) -> Iterator[Embedding]:
        """Yield the vectors of each text of a stream, in order, in bounded memory.

        Texts are read and embedded a window at a time.

        Args:
            texts: strings, or lists of words; may be endless.
            batch_tokens: tokens per batch.
            **options: keyword arguments of `embed`.

        Raises:
            TypeError, SelectionError, WarmUpError, ScratchError, VectorError: as `embed`.
        """
        for window in text_windows(texts, window_characters(self.depth, self.dim)):
            yield from self.embed(window, batch_tokens, **options)

    def embed_selection(
        self,
        texts: Sequence[Text],
        selection: Selection,
        batch_tokens: int = 8192,
        warm_up: bool = False,
        memory_bytes: int = 1 << 28,
        advance: Advance = lambda _: None,
    ) -> list[Embedding]:
        """Return the vectors of each text as `embed` does, with the choice of vectors in one object.

        ``advance`` is called with the number of words or positions, whenever some were computed; also
        inside a long text, which shows that the call makes progress.

        Raises:
            TypeError, SelectionError, WarmUpError, ScratchError, VectorError: as `embed`.
        """
        selection.check(self.depth)
        read = self.reader.read(texts, selection.segmenter)
        lengths = [len(text.tokens) for text in read]
        batches = plan_batches(lengths, batch_tokens, selection.counts_padding)
        return self.embed_batches(read, selection, batches, warm_up, memory_bytes, advance)

    def embed_batches(
        self,
        read: Sequence[Tokenised],
        selection: Selection,
        batches: Sequence[Sequence[int]],
        warm_up: bool = False,
        memory_bytes: int = 1 << 28,
        advance: Advance = lambda _: None,
    ) -> list[Embedding]:
        """Return the vectors of texts that ``reader`` has read, computed in the given batches.

        ``batches`` holds the indices of the texts of each batch. A batch may repeat a text.
        """
        needed = selection.read_layers(self.depth)
        new = partial(allocate, memory_bytes=memory_bytes)
        found: dict[int, npt.NDArray[np.float32]] = {}
        units = [units_of(text, selection.unit) for text in read]
        with self.encoder.inference():
            state = self._first_state(warm_up)
            encode = self.encoder.encode
            if selection.kind == "gradient":
                gradients = GradientEncoder(self.encoder, self.network, self.starts, selection.path)
                encode = gradients.encode
            self.encoder.learn((text.tokens for text in read), advance)
            for batch in batches:
                tokens_of = [read[number].tokens for number in batch]
                arrays = [new((len(needed), len(tokens), self.dim)) for tokens in tokens_of]
                encode(tokens_of, needed, state, [partial(put, one) for one in arrays], advance)
                for number, array in dict(zip(batch, arrays, strict=True)).items():
                    spans = units[number][1]
                    found[number] = selection.of(array, spans, self.network.reading_directions, new)
        return [
            Embedding(
                text.text,
                units[number][0],
                found[number],
                0 if self._spellings is None else self._spellings.truncated(text.tokens),
                selection.unit == "word" and text.lacks_spaces,
            )
            for number, text in enumerate(read)
        ]

    def _first_state(self, warm_up: bool) -> Tensor:
        zero = self.network.zero_state(1)
        if not warm_up:
            return zero
        if self.warm_up is None:
            raise WarmUpError(
                "this model has no warm-up text; export it with export.warm_up, or set warm_up to false"
            )
        [text] = self.reader.read([self.warm_up])
        return self.encoder.state_after(text.tokens, zero)
