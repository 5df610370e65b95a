"""The error of a distillation that is not possible."""

from preprocess.errors import UserError


class DistillationError(UserError):
    """Raised if a model or its vectors cannot be distilled."""
