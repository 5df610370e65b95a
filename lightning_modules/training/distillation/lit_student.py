"""Training of a student with its teacher."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import Losses
from lightning_modules.nn.heads.routes import ranks_of
from lightning_modules.nn.window import Window
from lightning_modules.training.carried_state import CarriedState
from lightning_modules.training.checkpoint_format import fits
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.distillation.losses import LayerMaps, PredictionLoss
from lightning_modules.training.distillation.teacher import Teacher
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.optimizers import build_optimizer
from lightning_modules.training.trainer_settings import NO_TEACHER, arguments_of, share_of
from lightning_modules.training.weights.clusters import cutoffs_of, output_counts
from preprocess.errors import UserError
from preprocess.shards.format import Corpus


class LitStudent(LitBiLM):
    """Training of a language model with a trained one (Hinton et al. 2015), as a `LitBiLM`.

    The teacher reads the same windows, without gradients. The loss is

        cross-entropy + layers * L + predictions * P

    with L of `LayerMaps`, P of `PredictionLoss`, and the weights of `TeacherConfig`. The maps are trained
    with the network, but are not part of it. A checkpoint has the maps and the teacher's recurrent state,
    not its weights.

    Also logged: ``loss_layers`` and ``loss_predictions``, L and P before they are weighted. ``train_loss``
    remains the cross-entropy.

    Args:
        model, train, vocabulary, cutoffs, ranks: as of `LitBiLM`; ``train.teacher`` must be set.
        teacher: the teacher. `for_corpus` opens it.

    Raises:
        UserError: if ``train.teacher`` is not set, or the teacher does not fit the model.

    Attributes:
        teacher: the teacher.
        maps: maps of layers; None if ``train.teacher.layers`` is 0.
    """

    uses_teacher = True

    def __init__(
        self,
        model: ModelConfig | Mapping[str, Any],
        train: TrainConfig | Mapping[str, Any],
        vocabulary: int,
        cutoffs: Sequence[int] = (),
        ranks: Tensor | None = None,
        *,
        teacher: Teacher,
    ) -> None:
        super().__init__(model, train, vocabulary, cutoffs, ranks)
        settings = self.train_config.teacher
        if settings is None:
            raise UserError(NO_TEACHER)
        teacher.check(self.network, settings)
        self.settings, self.teacher = settings, teacher
        self.maps = LayerMaps(self.network, teacher.network) if settings.layers else None
        self._predictions: PredictionLoss | None = None
        if settings.predictions:
            networks = self.network, teacher.network
            self._predictions = PredictionLoss(*networks, settings.temperature)

    @classmethod
    def for_corpus(
        cls,
        corpus: str | Corpus,
        model: ModelConfig | Mapping[str, Any],
        train: TrainConfig | Mapping[str, Any],
    ) -> "LitStudent":
        """Return a module for a corpus, with the clusters of the teacher's output layer if they fit.

        Args:
            corpus: folder of the prepare stage, a path or URL, or the corpus itself.
            model, train: as of the class.

        Raises:
            UserError: if the corpus or the teacher cannot be opened, or the settings do not fit them.
        """
        corpus, model, train = arguments_of(corpus, model, train, student=True)
        assert train.teacher is not None
        tokenizer = corpus.manifest.details["tokenizer"]
        teacher = Teacher.open(train.teacher, tokenizer, train.boundary)
        clusters = teacher.clusters(model.head, model.predictable_ids(corpus.vocabulary))
        if clusters is None:
            counts = output_counts(corpus, model, train)
            clusters = cutoffs_of(model, train, counts), torch.from_numpy(ranks_of(counts))
        return cls(model, train, corpus.vocabulary, *clusters, teacher=teacher)

    def _start(self) -> None:
        super()._start()
        self._teacher_state: CarriedState | None = None
        self._restored_teacher: Tensor | None = None

    def compile_cell(self, rows: int | None = None) -> str:
        """Compile the recurrent cells of both networks; see `LitBiLM.compile_cell`."""
        if not self._cell:
            size = rows or self.train_config.rows // self.train_config.row_passes
            self.teacher.network.recurrent.compile_cell(self.train_config.compile, size)
        return super().compile_cell(rows)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser and the schedule of `LitBiLM`, with the maps as a second group."""
        configured: Any = super().configure_optimizers()
        if self.maps is not None:
            # A group of its own, because the state of an optimiser to start from has one.
            optimizer, maps = configured["optimizer"], [*self.maps.parameters()]
            train = self.train_config
            of_maps = build_optimizer(train.optimizer, maps, train.learning_rate)
            optimizer.add_param_group({"params": maps})
            optimizer.state.update(of_maps.state)  # Adagrad creates its sums when it is made
        return configured  # type: ignore[no-any-return]

    def setup(self, stage: str) -> None:
        """Refuse a Trainer that contradicts the settings, and passes that need too much memory."""
        super().setup(stage)
        if stage == TrainerFn.FITTING and self._predictions:
            train = self.train_config
            self._predictions.check(share_of(self.trainer, train).of_pass, train.unroll)

    def on_fit_start(self) -> None:
        """Move the teacher to the device of the student, and prepare both."""
        self.teacher.to(self.device)
        super().on_fit_start()

    @property
    def teacher_state(self) -> CarriedState:
        """The teacher's recurrent state of the rows of this rank, as `carried_state`."""
        if self._teacher_state is None:
            whole = self._restored_teacher
            if whole is None:
                whole = self.teacher.network.zero_state(self.train_config.rows)
            share = share_of(self.trainer, self.train_config)
            self._teacher_state = CarriedState(whole, share, self.device)
            self._restored_teacher = None
        return self._teacher_state

    def total_loss(self, losses: Losses, window: Window, number: int) -> Tensor:
        """Return the loss of a window of the pass ``number``, (), and carry the teacher's state."""
        loss = super().total_loss(losses, window, number)
        states = self.teacher_state.passes
        layers, states[number] = self.teacher.layers(window, states[number])
        if self.maps is not None:
            of_layers = self.maps(losses.layers, layers)
            self.figures.add_term("loss_layers", of_layers.detach())
            loss = loss + self.settings.layers * of_layers
        if self._predictions is not None:
            of_predictions = self._predictions(losses.top, layers[-1], window)
            self.figures.add_term("loss_predictions", of_predictions.detach())
            loss = loss + self.settings.predictions * of_predictions
        return loss

    def configure_gradient_clipping(self, *arguments: Any, **options: Any) -> None:
        """Clip the gradient. A skipped step also restores the teacher's state before it."""
        super().configure_gradient_clipping(*arguments, **options)
        self.teacher_state.undo_if(self.figures.is_skipped)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Take the step, and keep the teacher's state after it."""
        super().optimizer_step(*arguments, **options)
        self.teacher_state.keep()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the progress and the recurrent states of all rows to a checkpoint. Collective.

        "teacher_state" has the shape of "carried_state", with the sizes of the teacher.
        """
        super().on_save_checkpoint(checkpoint)
        checkpoint["teacher_state"] = self.teacher_state.of_all_rows()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the progress of a checkpoint of any number of ranks and passes.

        Raises:
            UserError: if the checkpoint has another format, or does not fit the model or the teacher.
        """
        super().on_load_checkpoint(checkpoint)
        if "held_out" in checkpoint:
            return
        with fits():
            state: Tensor = checkpoint["teacher_state"]
            if state.shape != self.teacher.network.zero_state(self.train_config.rows).shape:
                raise ValueError("a recurrent state of another teacher")
        self._restored_teacher = state
