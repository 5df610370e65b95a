"""The process of the server: its socket, signals, and its end."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from pipeline.serving.limits import STOP_SECONDS, ServeError
from pipeline.stopping import STOP_SIGNALS


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address.

    Args:
        host: address or name of an interface of this machine.
        port: port; 0 means a free one.

    Raises:
        ServeError: the address cannot be used.
    """
    if not 0 <= port < 1 << 16:
        raise ServeError(f"--port: {port} is not a port; write 0 (a free one) to 65535")
    bound = None
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, UnicodeError) as error:
        if bound is not None:
            bound.close()
        raise _unusable(host, port, error) from error
    return bound


def _unusable(host: str, port: int, error: Exception) -> ServeError:
    reason = getattr(error, "strerror", None) or error
    return ServeError(
        f"the server cannot listen at {host}, port {port} ({reason}); choose others with --host and --port"
    )


def url(bound: socket.socket) -> str:
    """Return the address of a socket as a URL."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn's server, which ends normally after a signal instead of raising it again.

    Args:
        config: uvicorn's settings.
        on_start: called when the server accepts requests and handles signals.
    """

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:
            # Another program that had bound the same address began to listen at it first.
            assert sockets
            host, port = sockets[0].getsockname()[:2]
            raise _unusable(host, port, error) from error
        self._on_start()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        former = {}
        if threading.current_thread() is threading.main_thread():
            former = {one: signal.getsignal(one) for one in STOP_SIGNALS}
        for one, handler in former.items():
            # A signal that is ignored, as SIGHUP is under nohup, stays ignored.
            if handler is not signal.SIG_IGN:
                signal.signal(one, self.handle_exit)
        try:
            yield
        finally:
            for one, handler in former.items():
                signal.signal(one, handler)


def server_of(
    application: Starlette, on_start: Callable[[], None] = lambda: None
) -> uvicorn.Server:
    """Return a server of an application; ``on_start`` is called when it accepts requests.

    In the main thread, its `run` serves until a signal of `STOP_SIGNALS`, then finishes the requests in
    progress. A second Ctrl-C ends it at once.
    """
    config = uvicorn.Config(
        application,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    return _Server(config, on_start)
