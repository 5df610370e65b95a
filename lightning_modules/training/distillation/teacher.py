"""The teacher: a trained model that reads the windows of its student. It is not trained."""

from typing import Literal

import torch
from torch import Tensor

from lightning_modules.config import HeadConfig
from lightning_modules.nn.bilm import BiLMNetwork, NoHead
from lightning_modules.nn.heads.sampled_softmax import SampledSoftmax
from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.nn.window import Window
from lightning_modules.training.distillation.config import TeacherConfig
from lightning_modules.training.distillation.source import teacher_folder
from lightning_modules.training.weights.other_tokenizer import other_tokenizer
from lightning_modules.training.weights.trained_clusters import Clusters, clusters_of_head
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.type_vectors import BEGIN, END, TypeVectors, speller_of
from preprocess.errors import UserError
from preprocess.shards.stream import boundary_ids
from preprocess.tokenizers.base import BOS, EOS


class Teacher:
    """A trained model that computes the layers of a student's windows, without gradients and dropout.

    It is no `torch.nn.Module`, so that a student which holds it neither trains, saves nor exports it.

    Args:
        model: the trained model.
        path: its name in messages.

    Attributes:
        network: its network, whose weights need no gradients.
        content: content hash of its model folder.
        path: the argument.
    """

    def __init__(self, model: BiLM, path: str) -> None:
        self.path, self.network, self.content = path, model.network, model.content
        self.network.requires_grad_(False)
        self._tokenizer, self._types = model.tokenizer, None
        if isinstance(self.network.input, CharCNN):
            speller = speller_of(self.network.input, model.tokenizer)
            self._types = TypeVectors(self.network.input, speller=speller)

    @classmethod
    def open(
        cls, settings: TeacherConfig, tokenizer: str, boundary: Literal["eos", "bos_eos"]
    ) -> "Teacher":
        """Load the model that the settings name.

        Args:
            settings: settings of the teacher.
            tokenizer: content hash of the student's tokenizer.
            boundary: the student's boundary tokens, as in ``train.boundary``.

        Raises:
            UserError: the settings name no model; the model reads other ids than the student, or has no
                recurrent layers; it has no output layer, but the loss on predictions has a weight.
            ManifestError: the folder holds no finished model.
            ModelError: a file of the model is missing or damaged.
        """
        folder = teacher_folder(settings)
        model = BiLM.from_pretrained(folder)
        name = f"train.teacher.model: {folder}"
        if model.tokenizer_content != tokenizer:
            content = model.tokenizer_content
            raise UserError(other_tokenizer(name, content, "it reads other ids"))
        if model.starts != boundary_ids(boundary):
            other = "bos_eos" if boundary == "eos" else "eos"
            raise UserError(
                f"{name} was trained with train.boundary={other}; set train.boundary={other}"
            )
        if not model.network.recurrent.config.layers:
            raise UserError(
                f"{name} has no recurrent layers, so it predicts nothing; name a model that `biloom train` "
                "trained"
            )
        if settings.predictions and isinstance(model.network.head, NoHead):
            raise UserError(
                f"{name} has no output layer, so it predicts nothing; set train.teacher.predictions=0, or "
                "export it again with export.head=true"
            )
        return cls(model, folder)

    def check(self, student: BiLMNetwork, settings: TeacherConfig) -> None:
        """Refuse a student that cannot learn from this teacher.

        Raises:
            UserError: it has other directions, more layers or another output vocabulary, or an output layer
                that computes few probabilities.
        """
        ways = ("forward", "both")
        if student.directions != self.network.directions:
            theirs, ours = ways[self.network.directions - 1], ways[student.directions - 1]
            raise UserError(
                f"model.directions is {ours}, but the teacher {self.path} has {theirs}; set "
                f"model.directions={theirs}"
            )
        depth, limit = student.recurrent.config.layers, self.network.recurrent.config.layers
        if settings.layers and depth > limit:
            raise UserError(
                f"model.recurrent.layers is {depth}, but the teacher {self.path} has {limit}, so some of the "
                f"student's layers have no counterpart; set model.recurrent.layers={limit}, or "
                "train.teacher.layers=0 to learn from predictions only"
            )
        if not settings.predictions:
            return
        off = "or set train.teacher.predictions=0 to learn from layers only"
        size, theirs_size = student.output_vocabulary, self.network.output_vocabulary
        if size != theirs_size:
            raise UserError(
                f"the student predicts {size:,} ids, but the teacher {self.path} predicts {theirs_size:,}; "
                f"set model.output_vocabulary={theirs_size}, {off}"
            )
        if isinstance(student.head, SampledSoftmax) and student.head.samples < size:
            raise UserError(
                "model.head.kind sampled_softmax computes few of the probabilities in training, so it cannot "
                f"learn from a teacher's predictions; set another model.head.kind, {off}"
            )

    def size_warning(self, parameters: int) -> str | None:
        """Return a warning if a student has at least as many parameters as this teacher, else None."""
        own = self.parameters
        if parameters < own:
            return None
        return (
            f"the student has as many parameters as its teacher or more ({parameters:,} and {own:,}); set a "
            "smaller model.recurrent.hidden, model.recurrent.projection or model.input"
        )

    @property
    def parameters(self) -> int:
        """Number of parameters of the network."""
        return sum(weight.numel() for weight in self.network.parameters())

    def clusters(self, head: HeadConfig, vocabulary: int) -> Clusters | None:
        """Return cutoffs and ranks of the output layer, if the student's can use them.

        Equal clusters make the loss on predictions cheap. Arguments and result as in `clusters_of_head`.
        """
        return clusters_of_head(self.network.head, head, vocabulary)

    def to(self, device: torch.device) -> None:
        """Move the network to a device."""
        self.network.to(device)

    @torch.no_grad()
    def layers(self, window: Window, state: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return the layers of a window of the student, and the state after it, as `BiLMNetwork.layers`.

        Args:
            window: inputs of the student: ids, or types with their ids.
            state: the teacher's state before the window, as in `BiLMNetwork.zero_state`.
        """
        inputs = window.inputs
        if not isinstance(inputs, Tensor):
            assert inputs.ids is not None, "types of a training window have ids"
            inputs = inputs.ids[inputs.positions]
        x = self._vectors(inputs)  # (directions, time, rows, width)
        run = self.network.recurrent(x, state, window.resets, training=False)
        return (x, *run.outputs), run.state

    def _vectors(self, ids: Tensor) -> Tensor:
        """Return the input vectors of ids, (*ids.shape, width)."""
        if self._types is None:
            vectors: Tensor = self.network.input(ids, training=False)
            return vectors
        # The vectors of words are kept, because the character CNN costs more than all other layers.
        distinct, places = ids.unique(return_inverse=True)
        numbers = distinct.tolist()
        marks = {BOS: BEGIN, EOS: END}
        words = [marks.get(number) or self._tokenizer.spelling(number) for number in numbers]
        return self._types.of(words, numbers)[places]
