"""The routes of the server, in the form of text-embeddings-inference and of OpenAI's embeddings."""

import asyncio
import base64
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lightning_modules.serving.answer import sentence_vector, unit_vectors
from pipeline.serving.bodies import B, EmbedAllBody, EmbedBody, OpenAIBody, TokenizeBody, parse
from pipeline.serving.errors import OPENAI_ROUTE, ClientGoneError, RequestError, json_response
from pipeline.serving.limits import BODY_SECONDS
from pipeline.serving.service import Asked, VectorService
from preprocess.tokenizers.aligned_text import Tokenised

OPEN_ROUTES = ("/health",)
"""Routes that need no key."""
GONE = 499
"""Status in the metrics of a request whose client went away."""
Handler = Callable[[Request], Awaitable[Response]]


class _Admitted:
    """A handler whose request is in progress until its answer is sent."""

    def __init__(self, service: VectorService, handler: Handler) -> None:
        self._service, self._handler = service, handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        with self._service.admitted(request):
            response = await self._handler(request)
            await response(scope, receive, send)


class Routes:
    """The handlers of the routes.

    Args:
        service: answers requests.
        info: the answer of /info.
    """

    def __init__(self, service: VectorService, info: Mapping[str, Any]) -> None:
        self._service, self._info = service, info

    def all(self) -> list[Route]:
        """Return the routes. /tokenize needs a model."""
        posts = {"/embed": self._embed, "/embed_all": self._embed_all, OPENAI_ROUTE: self._openai}
        if self._service.source.model is not None:
            posts["/tokenize"] = self._tokenize
        return [
            Route("/info", self._show_info),
            Route("/health", self._health),
            Route("/metrics", self._metrics),
            *(
                Route(path, _Admitted(self._service, handler), methods=["POST"])
                for path, handler in posts.items()
            ),
        ]

    async def _body(self, request: Request, kind: type[B]) -> B:
        """Read and parse a body.

        Raises:
            RequestError: it is too large (413), too slow (408), of another type (415), or wrong.
            ClientGoneError: the client has closed the connection.
        """
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json":
            raise RequestError(
                "send the header `Content-Type: application/json`", "Validation", 415
            )
        most, data = self._service.limits.payload_limit, bytearray()
        length = request.headers.get("content-length", "")
        too_large = RequestError(f"the request has more than {most:,} bytes", "Validation")
        if length.isdigit() and int(length) > most:
            raise too_large
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.stream():
                    self._service.reserve(request, "bytes", len(part))
                    data += part
                    if len(data) > most:
                        raise too_large
        except TimeoutError:
            raise RequestError(
                f"the request did not arrive within {BODY_SECONDS:g} seconds",
                "Validation",
                408,
                {"Connection": "close"},
            ) from None
        except ClientDisconnect:
            raise ClientGoneError from None
        return parse(kind, bytes(data))

    async def _embed(self, request: Request) -> Response:
        body = await self._body(request, EmbedBody)
        asked = Asked(body.inputs, "sentence", body.layers, body.pooling, bool(body.truncate))
        found = await self._service.vectors(request, asked)
        return json_response([sentence_vector(one, body.normalize) for one in found.vectors])

    async def _embed_all(self, request: Request) -> Response:
        body = await self._body(request, EmbedAllBody)
        asked = Asked(body.inputs, body.unit, body.layers, body.pooling, bool(body.truncate))
        found = await self._service.vectors(request, asked)
        return json_response([unit_vectors(one) for one in found.vectors])

    async def _openai(self, request: Request) -> Response:
        body = await self._body(request, OpenAIBody)
        asked = Asked(body.input, "sentence", body.layers, body.pooling, False)
        found = await self._service.vectors(request, asked)
        data = []
        for index, one in enumerate(found.vectors):
            vector: Any = sentence_vector(one, normalize=True)
            if body.encoding_format == "base64":
                vector = base64.b64encode(vector.astype(np.dtype("<f4")).tobytes()).decode()
            data.append({"object": "embedding", "index": index, "embedding": vector})
        usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
        model = self._info["model_id"]
        return json_response({"object": "list", "data": data, "model": model, "usage": usage})

    async def _tokenize(self, request: Request) -> Response:
        body = await self._body(request, TokenizeBody)
        prepared = await self._service.tokenised(request, body.inputs)
        # In a thread, because other requests would wait for a large answer.
        return await asyncio.to_thread(_tokens_response, [one.text for one in prepared if one.text])

    async def _show_info(self, request: Request) -> Response:
        return json_response(self._info)

    async def _health(self, request: Request) -> Response:
        if not self._service.is_healthy:
            raise RequestError("the thread that computes vectors has ended; restart", "Unhealthy")
        return Response()

    async def _metrics(self, request: Request) -> Response:
        return self._service.metrics.response()


def application(service: VectorService, info: Mapping[str, Any], key: str | None) -> Starlette:
    """Return the ASGI application.

    Args:
        service: answers requests.
        info: the answer of /info.
        key: the key that clients must send as bearer token; None means that all may ask.
    """
    routes = Routes(service, info).all()
    paths = frozenset(route.path for route in routes)

    class Counted:
        """Counts requests with their status and duration."""

        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            began, status = time.monotonic(), GONE

            async def counted(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await self._app(scope, receive, counted)
            except ClientGoneError:
                status = GONE
            except asyncio.CancelledError:
                # uvicorn cancels the requests that are in progress when the time to stop is over.
                if status == GONE:
                    stopped = RequestError("the server stops; ask another one", "Unhealthy")
                    await stopped.response(scope["path"])(scope, receive, counted)
            except Exception:
                status = 500
                raise
            finally:
                route = scope["path"] if scope["path"] in paths else "other"
                service.metrics.on_request(route, status, time.monotonic() - began)

    class Authorised:
        """Refuses requests without the key."""

        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            header = dict(scope["headers"]).get(b"authorization", b"")
            scheme, _, sent = header.partition(b" ")
            is_open = key is None or scope["path"] in OPEN_ROUTES
            is_key = hmac.compare_digest(sent.strip(), str(key).encode())
            if is_open or (scheme.lower() == b"bearer" and is_key):
                await self._app(scope, receive, send)
                return
            refusal = RequestError(
                "send the key of this server in the header `Authorization: Bearer KEY`",
                "Unauthorized",
                401,
                {"WWW-Authenticate": "Bearer"},
            )
            await refusal.response(scope["path"])(scope, receive, send)

    handlers: Mapping[Any, Any] = {
        RequestError: _answer_error,
        HTTPException: _answer_http,
        Exception: _answer_fault,
    }
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Counted), Middleware(Authorised)],
        exception_handlers=handlers,
    )
    app.router.redirect_slashes = False
    return app


def _tokens_response(texts: Sequence[Tokenised]) -> Response:
    return json_response(
        [
            [
                {
                    "id": token.id,
                    "text": token.spelling,
                    "special": False,
                    "start": token.start,
                    "stop": token.end,
                }
                for token in text.tokens
            ]
            for text in texts
        ]
    )


async def _answer_error(request: Request, error: RequestError) -> Response:
    return error.response(request.url.path)


async def _answer_http(request: Request, error: HTTPException) -> Response:
    answer = RequestError(error.detail, "Validation", error.status_code, error.headers)
    return answer.response(request.url.path)


async def _answer_fault(request: Request, error: Exception) -> Response:
    # uvicorn writes the traceback to standard error.
    answer = RequestError("internal error; its traceback is in the server's log", "Backend", 500)
    return answer.response(request.url.path)
