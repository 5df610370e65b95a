"""The losses of a student on the layers and the predictions of its teacher."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.heads.adaptive_softmax import AdaptiveSoftmax
from lightning_modules.nn.heads.routes import Routes
from lightning_modules.nn.window import Window
from preprocess.errors import UserError

LEAST_SIZE = 1e-12
"""Squared size below which a vector counts as zero, so that nothing is divided by it."""
MOST_PROBABILITIES = 1 << 27
"""Largest number of probabilities of a window: 512 MiB. The loss and its gradient hold several such arrays."""


class LayerMaps(nn.Module):
    """An affine map per layer and direction from a student's layer to that of its teacher.

    Layers are matched from the top: the student's top layer with the teacher's top layer, and so on;
    layer 0 is matched with layer 0. Maps between layers of different widths are as in Romero et al.
    (2015) and Jiao et al. (2020, equations 8 and 9).

    Initialisation: the identity, cut or padded with zeros if the widths differ; biases are 0.

    Args:
        student, teacher: the networks; the student has at most as many layers.
    """

    def __init__(self, student: BiLMNetwork, teacher: BiLMNetwork) -> None:
        super().__init__()
        depth, limit = (one.recurrent.config.layers for one in (student, teacher))
        self.matched = (0, *range(limit - depth + 1, limit + 1))
        shape = (depth + 1, student.directions)
        identity = torch.eye(student.direction_width, teacher.direction_width)
        self.weight = nn.Parameter(identity.expand(*shape, -1, -1).clone())
        self.bias = nn.Parameter(torch.zeros(*shape, 1, teacher.direction_width))

    def forward(self, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
        """Return the sum over the student's layers of the relative squared error, ().

            sum_l mean_i ||s_li A_l + b_l - t_li||^2 / ||t_li||^2

        The mean is over positions i of all directions, so that the loss of several rows is the mean of
        their losses. The scale of the teacher's vectors does not count. Patient distillation divides
        by the size of each vector too (Sun et al. 2019).

        Args:
            ours: layers of the student, each (directions, time, rows, width), layer 0 first.
            theirs: layers of the teacher.
        """
        # (layers + 1, directions, time * rows, width)
        students = torch.stack(tuple(ours)).flatten(2, 3)
        teachers = torch.stack([theirs[number] for number in self.matched]).flatten(2, 3)
        errors = (students @ self.weight + self.bias).to(teachers.dtype) - teachers
        sizes = teachers.square().sum(-1)
        factors = torch.where(sizes > LEAST_SIZE, 1 / sizes.clamp(min=LEAST_SIZE), 0)
        return (errors.square().sum(-1) * factors).mean((1, 2)).sum()


class PredictionLoss:
    """The divergence of a student's probabilities from its teacher's (Hinton et al. 2015, section 2).

        T^2 KL(p || q),  p = softmax(teacher's logits / T),  q = softmax(student's logits / T)

    It is in nats, the mean over predicted positions of a direction, and the mean of the directions.

    If both have an adaptive softmax with the same clusters, it is the divergence over ids and tails in
    the head, plus, at the positions whose target is in a tail, that over the ids of the tail, which the
    cross-entropy computes too. With T = 1, its expectation over targets that are drawn from the
    teacher's probabilities is the divergence over the whole vocabulary. Other output layers compute
    the probabilities of all ids.

    Args:
        student, teacher: the networks, which predict the same ids.
        temperature: T.
    """

    def __init__(self, student: BiLMNetwork, teacher: BiLMNetwork, temperature: float) -> None:
        self._student, self._teacher, self._temperature = student, teacher, temperature
        ours, theirs = student.head, teacher.head
        self.by_cluster = (
            isinstance(ours, AdaptiveSoftmax)
            and isinstance(theirs, AdaptiveSoftmax)
            and ours.cutoffs == theirs.cutoffs
            and torch.equal(ours.ranks.cpu(), theirs.ranks.cpu())
        )

    def check(self, rows: int, unroll: int) -> None:
        """Refuse a pass of so many rows if the probabilities of all ids need too much memory.

        Raises:
            UserError: they are more than `MOST_PROBABILITIES`.
        """
        positions, ids = self._student.directions * rows * unroll, self._student.output_vocabulary
        if self.by_cluster or positions * ids <= MOST_PROBABILITIES:
            return
        raise UserError(
            f"the loss on predictions would compute {positions:,} x {ids:,} probabilities at once, because "
            "student and teacher have other output layers; set model.head.kind=adaptive_softmax with the "
            "teacher's cutoffs if the teacher has this kind, raise train.row_passes, or set "
            "train.teacher.predictions=0"
        )

    def __call__(self, ours: Tensor, theirs: Tensor, window: Window) -> Tensor:
        """Return the loss of a window, ().

        Args:
            ours, theirs: outputs of the top layers, (directions, time, rows, width of each).
            window: its targets and routes are read.
        """
        student, teacher = self._student.head, self._teacher.head
        ours, theirs = ours.flatten(0, 2), theirs.flatten(0, 2)  # (n, width)
        if self.by_cluster:
            assert isinstance(student, AdaptiveSoftmax)
            assert isinstance(teacher, AdaptiveSoftmax)
            assert window.routes is not None, "`WindowMaker` has computed them"
            losses = self._of_clusters(student, teacher, ours, theirs, window.routes)
        else:
            with torch.no_grad():
                wanted = teacher.log_probabilities(theirs)
            losses = self._divergence(student.log_probabilities(ours), wanted)
        is_target = window.targets >= 0
        losses = losses.view(window.targets.shape) * is_target
        return (losses.sum((1, 2)) / is_target.sum((1, 2)).clamp(min=1)).mean()

    def _of_clusters(
        self,
        student: AdaptiveSoftmax,
        teacher: AdaptiveSoftmax,
        ours: Tensor,
        theirs: Tensor,
        routes: Routes,
    ) -> Tensor:
        """Return the divergence at each position, (n,)."""
        with torch.no_grad():
            wanted = teacher.head(theirs)
        losses = self._divergence(student.head(ours), wanted)
        tails = zip(student.tail, teacher.tail, routes.rows, routes.targets, strict=True)
        for ours_tail, theirs_tail, rows, relative in tails:
            with torch.no_grad():
                wanted = theirs_tail(theirs[rows])
            of_tail = self._divergence(ours_tail(ours[rows]), wanted)
            losses = losses.index_add(0, rows, of_tail * (relative >= 0))
        return losses

    def _divergence(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """Return T^2 KL(p || q) for logits or log-probabilities (n, ids), as (n,)."""
        log_q, log_p = ((one.float() / self._temperature).log_softmax(1) for one in (ours, theirs))
        kl = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
        return self._temperature**2 * kl
