"""A training that starts from a trained model: adaptation to a domain."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.config import (
    AdaptiveSoftmaxConfig,
    CharCNNInputConfig,
    HeadConfig,
    ModelConfig,
)
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.heads.adaptive_softmax import AdaptiveSoftmax
from lightning_modules.nn.inputs.adaptive_input import AdaptiveInput
from lightning_modules.vectors.pretrained import BiLM
from preprocess.errors import UserError


@dataclass(frozen=True)
class InitialWeights:
    """The weights of the model folder ``path``; ``same_ids``: its tokenizer is the corpus's."""

    path: str
    network: BiLMNetwork
    same_ids: bool

    @classmethod
    def read(cls, path: str, tokenizer: str, model: ModelConfig) -> "InitialWeights":
        """Those of a model folder, for a corpus whose tokenizer has this `content`.

        Raises:
            ManifestError: it holds no finished model.
            UserError: the vectors of its ids mean nothing to this corpus.
        """
        found = BiLM.from_pretrained(path)
        same_ids = found.tokenizer_content == tokenizer
        if not same_ids and not isinstance(model.input, CharCNNInputConfig):
            raise UserError(
                f"train.init_from: {path} was trained with another tokenizer than this corpus has, "
                "and its input vectors belong to that one's ids; prepare the corpus with it "
                "(prepare.tokenizer names its tokenizer folder)"
            )
        return cls(path, found.network, same_ids)

    def clusters(self, head: HeadConfig, vocabulary: int) -> tuple[tuple[int, ...], Tensor] | None:
        """Cutoffs and ranks of its output layer, where one of this config can go on with them."""
        own = self.network.head
        if not (
            self.same_ids
            and isinstance(head, AdaptiveSoftmaxConfig)
            and isinstance(own, AdaptiveSoftmax)
            and own.vocabulary == vocabulary
            and head.cutoffs in ("auto", own.cutoffs)
        ):
            return None
        return own.cutoffs, own.ranks

    @torch.no_grad()
    def adopt(self, network: BiLMNetwork) -> str:
        """Take them into ``network``; returns a sentence about the output layer.

        Raises:
            UserError: input encoder or recurrent stack are of other shapes.
        """
        theirs = self.network.state_dict()
        ours = network.state_dict()
        for name, tensor in ours.items():
            if name.startswith("head."):
                continue
            found = theirs.get(name)
            if found is None or found.shape != tensor.shape:
                has = "none" if found is None else f"one of shape {tuple(found.shape)}"
                raise UserError(
                    f"train.init_from: this config's {name} has shape {tuple(tensor.shape)}, and "
                    f"{self.path} has {has}; set model.* as in its config.json"
                )
        heads = [{k: v for k, v in of.items() if k.startswith("head.")} for of in (ours, theirs)]
        fits = {k: v.shape for k, v in heads[0].items()} == {
            k: v.shape for k, v in heads[1].items()
        }
        kept = self.same_ids and fits
        lost = sorted(k for k in theirs if k.startswith("input.") and k not in ours)
        tied = isinstance(network.input, AdaptiveInput) and network.input.is_tied
        if lost or (tied and not kept):
            raise UserError(
                f"train.init_from: {self.path} has its input vectors "
                f"{'in ' + lost[0] if lost else 'in an output layer of other shapes'}, which this "
                "config has not; set model.tied, model.head.* and model.input.* as in its config.json"
            )
        network.load_state_dict(
            {k: v for k, v in theirs.items() if k in ours and (kept or not k.startswith("head."))},
            strict=False,
        )
        return "its output layer is taken too" if kept else "the output layer is drawn anew"
