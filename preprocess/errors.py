"""The base class of errors that users can fix."""


class UserError(ValueError):
    """Wrong input, a wrong setting or a damaged file.

    The message says what is wrong, where, and what to do. The command line prints it without a
    traceback and exits with status 2.
    """
