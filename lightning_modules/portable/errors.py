"""The error class of this package."""

from preprocess.errors import UserError


class PortableError(UserError):
    """A model that cannot be converted, or whose converted form computes other vectors."""
