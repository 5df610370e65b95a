"""Initial weights from a trained model, for example to adapt it to another domain."""

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
    """Weights of a model folder that a training starts from.

    Attributes:
        path: the model folder.
        network: the trained network.
        same_ids: whether its tokenizer is the tokenizer of the corpus.
    """

    path: str
    network: BiLMNetwork
    same_ids: bool

    @classmethod
    def read(cls, path: str, tokenizer: str, model: ModelConfig) -> "InitialWeights":
        """Load a model folder.

        Args:
            path: the model folder, a path or URL.
            tokenizer: content hash of the corpus's tokenizer.
            model: settings of the network to be trained.

        Raises:
            ManifestError: if the folder holds no finished model.
            UserError: if the model has a vector for each id of a different tokenizer.
        """
        model_in_folder = BiLM.from_pretrained(path)
        same_ids = model_in_folder.tokenizer_content == tokenizer
        if not same_ids and not isinstance(model.input, CharCNNInputConfig):
            raise UserError(
                f"train.init_from: {path} was trained with another tokenizer than this corpus has, so "
                "its input vectors do not fit the ids of the corpus; prepare the corpus with the "
                "model's tokenizer (set prepare.tokenizer to its folder)"
            )
        return cls(path, model_in_folder.network, same_ids)

    def clusters(self, head: HeadConfig, vocabulary: int) -> tuple[tuple[int, ...], Tensor] | None:
        """Return cutoffs and ranks of the model's adaptive softmax, if the new one can use them.

        Args:
            head: settings of the new output layer.
            vocabulary: number of ids that the new output layer predicts.

        Returns:
            Cutoffs, and the rank of each id, int64 (vocabulary,); None if they do not fit.
        """
        trained = self.network.head
        if not (
            self.same_ids
            and isinstance(head, AdaptiveSoftmaxConfig)
            and isinstance(trained, AdaptiveSoftmax)
            and trained.vocabulary == vocabulary
            and head.cutoffs in ("auto", trained.cutoffs)
        ):
            return None
        return trained.cutoffs, trained.ranks

    @torch.no_grad()
    def adopt(self, network: BiLMNetwork) -> str:
        """Copy the weights into a network.

        The output layer is copied if it fits, and keeps its random weights otherwise.

        Returns:
            A phrase for the console that says which of the two happened.

        Raises:
            UserError: if the input encoder or the recurrent stack has other shapes.
        """
        theirs = self.network.state_dict()
        ours = network.state_dict()
        for name, tensor in ours.items():
            if name.startswith("head."):
                continue
            saved = theirs.get(name)
            if saved is None or saved.shape != tensor.shape:
                has = "no such weight" if saved is None else f"shape {tuple(saved.shape)}"
                raise UserError(
                    f"train.init_from: {name} has shape {tuple(tensor.shape)} in this config and "
                    f"{has} in {self.path}; set model.* as in its config.json"
                )
        shapes, saved_shapes = (
            {name: tensor.shape for name, tensor in weights.items() if name.startswith("head.")}
            for weights in (ours, theirs)
        )
        kept = self.same_ids and shapes == saved_shapes
        lost = sorted(k for k in theirs if k.startswith("input.") and k not in ours)
        tied = isinstance(network.input, AdaptiveInput) and network.input.is_tied
        if lost or (tied and not kept):
            raise UserError(
                f"train.init_from: {self.path} has its input vectors "
                f"{'in ' + lost[0] if lost else 'in an output layer of other shapes'}, which this "
                "config does not have; set model.tied, model.head.* and model.input.* as in its "
                "config.json"
            )
        network.load_state_dict(
            {k: v for k, v in theirs.items() if k in ours and (kept or not k.startswith("head."))},
            strict=False,
        )
        return (
            "its output layer is used too"
            if kept
            else "the output layer starts from random weights"
        )
