"""What can be wrong with a request, as a status and a JSON object.

The object is that of text-embeddings-inference: {"error": message, "error_type": kind}. The statuses
of its kinds are those of that server; further kinds are those of HTTP. The route of OpenAI has
{"message": message, "code": status, "type": kind}.
"""

import asyncio
from collections.abc import Mapping

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pipeline.serving.limits import PART_SECONDS

OPENAI_ROUTE = "/v1/embeddings"
"""The route whose errors have the form of OpenAI's API."""
PART_BYTES = 1 << 18
"""Size of the parts in which an answer is sent."""
RETRY_SECONDS = 1
"""After how many seconds an overloaded server is to be asked again."""

STATUS = {
    "Validation": 413,
    "Empty": 400,
    "Tokenizer": 422,
    "Backend": 424,
    "Overloaded": 429,
    "Unhealthy": 503,
}
"""Status of each kind of error of text-embeddings-inference."""


class RequestError(Exception):
    """An error that is answered to the client.

    Args:
        message: what is wrong, where, and what to do.
        kind: the ``error_type``.
        status: HTTP status; None means that of ``kind`` in `STATUS`.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        message: str,
        kind: str,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.kind = message, kind
        self.status = STATUS[kind] if status is None else status
        self.headers = dict(headers or {})

    def response(self, path: str) -> Response:
        """Return the answer on a route."""
        if path == OPENAI_ROUTE:
            body = {"message": self.message, "code": self.status, "type": self.kind}
        else:
            body = {"error": self.message, "error_type": self.kind}
        return json_response(body, self.status, self.headers)


class ClientGoneError(Exception):
    """The client has closed the connection, or does not receive its answer."""


class PartedResponse(Response):
    """An answer that is sent part by part. The call ends when the client's system has received it.

    A client that does not read is therefore counted as in progress, and its answer as memory in use.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer.

        Raises:
            ClientGoneError: the client does not receive a part within `PART_SECONDS`.
        """
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        # `send` waits until the former part has left; the last part is empty.
        for first in range(0, len(self.body) + PART_BYTES, PART_BYTES):
            part = self.body[first : first + PART_BYTES]
            try:
                async with asyncio.timeout(PART_SECONDS):
                    await send(
                        {"type": "http.response.body", "body": part, "more_body": bool(part)}
                    )
            except TimeoutError:
                raise ClientGoneError from None


def overloaded(message: str) -> RequestError:
    """Return the error of a server that has too much to do."""
    return RequestError(message, "Overloaded", headers={"Retry-After": str(RETRY_SECONDS)})


def json_response(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an object as JSON. Arrays of float32 have the fewest digits that identify each number."""
    data = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return PartedResponse(data, status, headers, "application/json")
