"""The spaCy architecture ``biloom.Tok2Vec.v1``: vectors for components that are trained.

[components.tok2vec]
factory = "tok2vec"

[components.tok2vec.model]
@architectures = "biloom.Tok2Vec.v1"
model = "runs/base/export"
width = 128

[components.ner.model.tok2vec]
@architectures = "spacy.Tok2VecListener.v1"
width = ${components.tok2vec.model.width}
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import srsly
import torch
from safetensors.torch import load, save
from spacy import registry
from thinc.api import ArgsKwargs, Model, PyTorchWrapper_v3, get_torch_default_device
from thinc.util import torch2xp, xp2torch
from torch import Tensor, nn

from lightning_modules.integrations.spacy_model import ModelSource, PipelineError, spanned
from lightning_modules.vectors.batches import plan_batches
from lightning_modules.vectors.embedder import BiLMEmbedder
from lightning_modules.vectors.selection import Pooling

PREDICTED_TOKENS = 4096
"""spaCy tokens per batch in prediction, including padding."""


def make_tok2vec(
    model: str,
    width: int | None = None,
    trainable: bool = False,
    pooling: str | None = None,
    dropout: float = 0.0,
    bundle: bool = False,
) -> Model:
    """Make a layer that maps Docs to a vector per token: Model[list[Doc], list[Floats2d]].

    The vector is a learned mix of the model's layers. Tokens are those of spaCy, see `BiLMVectors`.

    Args:
        model: model folder, as in `BiLM.from_pretrained`.
        width: size of the vectors, by a learned linear map; None leaves the model's own size.
        trainable: whether the language model is trained, too.
        pooling: how the vectors of several subwords become that of a token, as in `BiLM.embed`.
        dropout: probability of dropout on the vectors.
        bundle: whether a saved pipeline holds the files of the model folder.

    Raises:
        PipelineError: ``width`` is below 1.
    """
    if width is not None and width < 1:
        raise PipelineError(f"width: {width} is too small; write 1 or more, or null")
    layer = Tok2VecLayer(ModelSource(model, bundle), width, trainable, cast(Any, pooling), dropout)
    wrapped = PyTorchWrapper_v3(
        layer,
        convert_inputs=_to_torch,
        convert_outputs=_from_torch,
        serialize_model=_save,
        deserialize_model=_restore,
    )
    return Model(
        "biloom_tok2vec", _forward, init=_init, layers=[wrapped], dims={"nO": layer.known_width()}
    )


class Tok2VecLayer(nn.Module):
    """The torch part: tokens of texts to vectors.

    It is built when it is first needed, so that a pipeline can be loaded whose language model is
    bundled and whose folder is gone. Arguments as in `make_tok2vec`.
    """

    embedder: BiLMEmbedder

    def __init__(
        self,
        source: ModelSource,
        width: int | None,
        trainable: bool,
        pooling: Pooling | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.source, self._width = source, width
        self._trainable, self._pooling, self._dropout = trainable, pooling, dropout
        self._is_built = False

    def known_width(self) -> int | None:
        """Return the size of a vector; None if only the model, which cannot be loaded, knows it."""
        if self._width is None:
            try:
                return self.source.model.dim
            except (ValueError, OSError):  # told when it is needed
                return None
        return self._width

    def build(self) -> None:
        """Load the language model and make the weights, on spaCy's device."""
        if self._is_built:
            return
        model = self.source.model
        self.embedder = BiLMEmbedder(
            model, pooling=self._pooling, dropout=self._dropout, trainable=self._trainable
        )
        self.projection = nn.Linear(model.dim, self._width) if self._width else nn.Identity()
        # Instead of the mix's own, whose shape () thinc's optimizer cannot update.
        for mix in self.embedder.mixes:
            mix.gamma.requires_grad_(False)
        self.gamma = nn.Parameter(torch.ones(1))
        self._is_built = True
        self.to(get_torch_default_device())

    def forward(self, docs: Sequence[Any]) -> Tensor:
        """Return the vectors of all tokens of all Docs, (tokens, width)."""
        self.build()
        batch = self.embedder.batch([spanned(doc) for doc in docs])
        (vectors,), mask = self.embedder(batch)
        found: Tensor = self.projection(vectors[mask]) * self.gamma
        start, rows = 0, []
        for doc, text in zip(docs, batch.texts, strict=True):
            rows += [start + number for number in text.numbers]
            start += len(doc)
        index = torch.tensor(rows, dtype=torch.int64, device=found.device)
        return found.new_zeros(start, found.shape[1]).index_copy(0, index, found)


def _init(model: Model, X: Any = None, Y: Any = None) -> None:  # noqa: N803
    if X is not None and len(X):
        model.set_dim("nO", model.layers[0].predict(X[:1])[0].shape[1])


def _forward(model: Model, docs: Sequence[Any], is_train: bool) -> tuple[Any, Callable[..., Any]]:
    [wrapped] = model.layers
    if is_train:
        found: tuple[Any, Callable[..., Any]] = wrapped(docs, is_train)
        return found
    vectors: list[Any] = [None] * len(docs)
    for batch in plan_batches([len(doc) for doc in docs], PREDICTED_TOKENS):
        predicted = wrapped.predict([docs[number] for number in batch])
        for number, one in zip(batch, predicted, strict=True):
            vectors[number] = one
    return vectors, lambda gradients: []


def _to_torch(
    wrapped: Model, docs: Sequence[Any], is_train: bool
) -> tuple[Any, Callable[..., Any]]:
    return ArgsKwargs((docs,), {}), lambda gradients: []


def _from_torch(
    wrapped: Model, inputs_and_output: tuple[Sequence[Any], Tensor], is_train: bool
) -> tuple[list[Any], Callable[[Iterable[Any]], Any]]:
    docs, output = inputs_and_output
    vectors = [torch2xp(one) for one in output.detach().split([len(doc) for doc in docs])]

    def backprop(gradients: Iterable[Any]) -> Any:
        given = torch.cat([xp2torch(one) for one in gradients]).to(output)
        return ArgsKwargs(((output,),), {"grad_tensors": (given,)})

    return vectors, backprop


def _save(layer: Tok2VecLayer) -> bytes:
    layer.build()
    state = {name: tensor.contiguous().cpu() for name, tensor in layer.state_dict().items()}
    data: bytes = srsly.msgpack_dumps({"model": layer.source.save(), "state": save(state)})
    return data


def _restore(layer: Tok2VecLayer, data: bytes, device: torch.device) -> Tok2VecLayer:
    saved: Any = srsly.msgpack_loads(data)
    layer.source.restore(saved["model"])
    layer.build()
    layer.load_state_dict(load(saved["state"]))
    return layer.to(device)


registry.architectures("biloom.Tok2Vec.v1")(make_tok2vec)
