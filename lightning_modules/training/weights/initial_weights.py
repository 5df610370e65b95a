"""Initial weights from a trained model or a checkpoint, for example to adapt it to another domain."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_modules.config import CharCNNInputConfig, HeadConfig, ModelConfig
from lightning_modules.models.checkpoint_file import CheckpointError, read_checkpoint
from lightning_modules.models.model_folder import network_of_checkpoint
from lightning_modules.models.stored_network import first_not_finite
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.inputs.adaptive_input import AdaptiveInput
from lightning_modules.training.config import OptimizerConfig, SGDConfig
from lightning_modules.training.optimizers import build_optimizer
from lightning_modules.training.weights.initial_source import InitialSource, initial_source
from lightning_modules.training.weights.other_tokenizer import other_tokenizer
from lightning_modules.training.weights.trained_clusters import Clusters, clusters_of_head
from lightning_modules.vectors.pretrained import BiLM
from preprocess.errors import UserError
from preprocess.files import storage

KEYS = {
    "adam": {"step", "exp_avg", "exp_avg_sq"},
    "adamw": {"step", "exp_avg", "exp_avg_sq"},
    "adagrad": {"step", "sum"},
    "sgd": {"momentum_buffer"},
}
"""What torch's optimisers keep for a weight, by kind."""

State = dict[str, Any]
"""What an optimiser keeps for a weight: its moments, and the number of its steps."""


@dataclass
class InitialWeights:
    """Weights that a training starts from, and the state of the optimiser that trained them.

    Attributes:
        path: the model folder, train folder or checkpoint.
        network: the trained network.
        same_ids: whether its tokenizer is the tokenizer of the corpus.
        settings: name of the file beside the weights that has the settings of the network.
        moments: state of the optimiser for each weight by name. None if the weights come from a model
            folder, empty if the checkpoint has no state of an optimiser.
        optimizer_state: `state_dict` of the optimiser to start with, in the order of the parameters of
            the network that `adopt` was called with; None if the optimiser starts anew.
    """

    path: str
    network: BiLMNetwork
    same_ids: bool
    settings: str = "config.json"
    moments: dict[str, State] | None = None
    optimizer_state: dict[str, Any] | None = None

    @classmethod
    def read(cls, path: str, tokenizer: str, model: ModelConfig) -> "InitialWeights":
        """Load a model folder, or a checkpoint of a finished training.

        Args:
            path: a model folder, a train folder or a checkpoint in one, as a path or URL.
            tokenizer: content hash of the corpus's tokenizer.
            model: settings of the network to be trained.

        Raises:
            ManifestError: if the folder holds no finished model or training.
            CheckpointError: if the checkpoint is damaged or does not fit its manifest.
            UserError: if the model has a vector for each id of a different tokenizer.
        """
        source = initial_source(path)
        if source.checkpoint is None:
            model_in_folder = BiLM.from_pretrained(path)
            content = model_in_folder.tokenizer_content
            same_ids = content == tokenizer
            initial = cls(path, model_in_folder.network, same_ids)
        else:
            content = source.manifest.details.get("tokenizer", "")
            same_ids = content == tokenizer
            network, moments = _read_checkpoint(source)
            initial = cls(path, network, same_ids, "config.yaml", moments)
        if not same_ids and not isinstance(model.input, CharCNNInputConfig):
            unfit = "its input vectors do not fit the ids of the corpus"
            raise UserError(other_tokenizer(f"train.init_from: {path}", content, unfit))
        return initial

    def clusters(self, head: HeadConfig, vocabulary: int) -> Clusters | None:
        """Return cutoffs and ranks of the model's adaptive softmax, if the new one can use them.

        Arguments and result as in `clusters_of_head`.
        """
        return clusters_of_head(self.network.head, head, vocabulary) if self.same_ids else None

    @torch.no_grad()
    def adopt(self, network: BiLMNetwork, optimizer: OptimizerConfig) -> str:
        """Copy the weights into a network, and set `optimizer_state` for it.

        The output layer is copied if it fits, and keeps its random weights otherwise. Then its moments
        are those of a new optimiser, and the moments of the other weights are kept.

        Args:
            network: the network to be trained.
            optimizer: settings of the optimiser that will train it.

        Returns:
            A phrase for the console that says which of these happened.

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
                    f"{has} in {self.path}; set model.* as in its {self.settings}"
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
                f"{self.settings}"
            )
        network.load_state_dict(
            {k: v for k, v in theirs.items() if k in ours and (kept or not k.startswith("head."))},
            strict=False,
        )
        self.optimizer_state, told = self._optimizer_state(network, optimizer, kept)
        layer = (
            "its output layer is used too"
            if kept
            else "the output layer starts from random weights"
        )
        return f"{layer}{told}"

    def _optimizer_state(
        self, network: BiLMNetwork, optimizer: OptimizerConfig, head: bool
    ) -> tuple[dict[str, Any] | None, str]:
        """Return the state of the optimiser to start with, and the end of a phrase that describes it.

        Args:
            network: the network to be trained.
            optimizer: settings of the optimiser.
            head: whether the weights of the output layer are those of the checkpoint.
        """
        if self.moments is None:
            return None, ""
        anew = "; the optimiser starts anew"
        if isinstance(optimizer, SGDConfig) and not optimizer.momentum:
            return None, f"{anew}, because sgd without momentum keeps no state"
        if not self.moments:
            return None, f"{anew}, because the checkpoint has no state of an optimiser"
        found = set().union(*self.moments.values())
        if found != KEYS[optimizer.kind]:
            kinds = [kind for kind, keys in KEYS.items() if keys == found] or ["another kind"]
            return None, f"{anew}, because the checkpoint has the state of {' or '.join(kinds)}"
        parameters = dict(network.named_parameters())
        # A new state has the settings of the config, and Adagrad's sums of weights that start anew.
        state = build_optimizer(optimizer, parameters.values(), 1.0).state_dict()
        fitting = [
            (number, name)
            for number, name in enumerate(parameters)
            if name in self.moments and (head or not name.startswith("head."))
        ]
        state["state"] |= {number: self.moments[name] for number, name in fitting}
        rest = "" if len(fitting) == len(parameters) else " of the weights that are used"
        return state, f"; the optimiser continues with its moments{rest}"


def _read_checkpoint(source: InitialSource) -> tuple[BiLMNetwork, dict[str, State]]:
    """Return the network of a checkpoint, and the state of the optimiser for each weight by name.

    Raises:
        CheckpointError: the checkpoint is damaged or does not fit its manifest.
    """
    assert source.checkpoint is not None
    path = storage.join(source.folder, source.checkpoint)
    network = network_of_checkpoint(source.folder, source.manifest.details, source.checkpoint)
    checkpoint = read_checkpoint(path)
    weights = dict(network.named_parameters())
    try:
        # Lightning's checkpoints have a list; those of biloom 0.1, one optimiser.
        found = [checkpoint.get("optimizer"), *(checkpoint.get("optimizer_states") or [])]
        optimizer: dict[str, Any] = next((one for one in found if one), {"state": {}})
        # Further groups have weights beside the network, such as the maps of a student.
        groups = optimizer.get("param_groups", ())[1:]
        beside = {number for group in groups for number in group["params"]}
        states: dict[int, State] = {
            number: state for number, state in optimizer["state"].items() if number not in beside
        }
        moments = {
            name: states[number] for number, name in enumerate(weights) if states.get(number)
        }
        fits = all(_fits(moments[name], weights[name]) for name in moments)
        if not fits or not states.keys() <= set(range(len(weights))):
            raise ValueError("the state of its optimiser has other shapes than its weights")
        tensors = dict(network.state_dict())
        tensors |= {f"{n} of {w}": t for w, state in moments.items() for n, t in state.items()}
        if name := first_not_finite(tensors):
            raise ValueError(f"{name} holds NaN or infinity")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(
            f"{path} cannot be continued ({reason}); name another checkpoint in train.init_from"
        ) from error
    return network, moments


def _fits(state: Mapping[str, Any], weight: Tensor) -> bool:
    """Return True if the tensors in the state of a weight have its shape, or are scalars such as its step."""
    return all(
        isinstance(one, Tensor) and one.shape in ((), weight.shape) for one in state.values()
    )
