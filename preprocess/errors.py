"""What a user can mend: told in one message, without a traceback."""


class UserError(ValueError):
    """Wrong input, wrong settings or a damaged file; the message says what, where, what to do."""
