"""Limits of a server, which bound its memory."""

from dataclasses import dataclass, fields

from preprocess.errors import UserError

ANSWER_VALUES = 1 << 22
"""Largest number of values of one answer: 16 MB of float32, some 50 MB of JSON."""
TOKEN_VALUES = 4
"""Values that a token in the answer of /tokenize counts as."""
WAITING = {"bytes": 1 << 26, "tokens": 1 << 20, "values": 1 << 25}
"""What all requests in progress may hold: bytes of requests; tokens, some 400 MB; values of answers until they
are sent, 128 MB of float32 and some 400 MB of JSON."""
PART_CHARACTERS = 1 << 16
"""Characters of texts that are tokenised before another request gets its turn; a longer text is not divided."""
BODY_SECONDS = 10.0
"""How long a client may take to send a request."""
PART_SECONDS = 30.0
"""How long a client may take to receive each part of an answer."""
STOP_SECONDS = 30
"""How long a server that was told to stop finishes requests."""


class ServeError(UserError):
    """Raised if a server cannot start."""


@dataclass(frozen=True)
class Limits:
    """Limits of requests.

    Attributes:
        max_batch_tokens: tokens that are computed together.
        max_concurrent_requests: requests that are read, wait, are computed or answered; more get status 429.
        max_client_batch_size: texts of a request.
        max_input_tokens: tokens of a text.
        payload_limit: bytes of a request.

    Raises:
        ServeError: a limit is below 1.
    """

    max_batch_tokens: int = 8192
    max_concurrent_requests: int = 512
    max_client_batch_size: int = 32
    max_input_tokens: int = 8192
    payload_limit: int = 2_000_000

    def __post_init__(self) -> None:
        for field in fields(self):
            if (value := getattr(self, field.name)) < 1:
                option = field.name.replace("_", "-")
                raise ServeError(f"--{option}: {value} is too small; write 1 or more")
