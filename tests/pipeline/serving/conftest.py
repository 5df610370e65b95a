"""Servers on loopback, in a thread of the test."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from lightning_modules.serving.source import ServedVectors
from lightning_modules.vectors.pretrained import BiLM
from pipeline.serving.application import application
from pipeline.serving.limits import Limits
from pipeline.serving.server import listen, server_of
from pipeline.serving.service import VectorService


@dataclass(frozen=True)
class Answer:
    """A status, headers and a body."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)


@dataclass(frozen=True)
class Served:
    """A running server.

    Attributes:
        port: its port on loopback.
        service: the service behind it.
        server: uvicorn's server.
    """

    port: int
    service: VectorService
    server: uvicorn.Server

    def stop(self) -> None:
        """Stop as at a signal."""
        self.server.should_exit = True

    def send(
        self, method: str, path: str, data: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, data, dict(headers))
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.headers), answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, None, headers)

    def post(self, path: str, body: object, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", path, data, {"Content-Type": "application/json", **headers})

    def metric(self, sample: str) -> float:
        """Return the value of a sample of /metrics, 0 if it is absent."""
        for line in self.get("/metrics").data.decode().splitlines():
            if line.startswith(f"{sample} "):
                return float(line.rpartition(" ")[2])
        return 0.0


@contextmanager
def running(source: ServedVectors, limits: Limits, key: str | None) -> Iterator[Served]:
    service = VectorService(source, limits)
    with listen("127.0.0.1", 0) as bound:
        server = server_of(application(service, {"model_id": "tiny"}, key))
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield Served(bound.getsockname()[1], service, server)
        server.should_exit = True
        thread.join()
        service.close()


@pytest.fixture(scope="session")
def model(trained: Path) -> BiLM:
    return BiLM.from_pretrained(trained / "export")


@pytest.fixture
def start() -> Iterator[Callable[..., Served]]:
    """A function that starts a server, which is stopped after the test."""
    with ExitStack() as stack:

        def begin(source: ServedVectors | BiLM, key: str | None = None, **limits: int) -> Served:
            if isinstance(source, BiLM):
                source = ServedVectors(source, None)
            return stack.enter_context(running(source, Limits(**limits), key))

        yield begin


@pytest.fixture(scope="module")
def served(model: BiLM) -> Iterator[Served]:
    """A server of the tiny model with the default limits."""
    with running(ServedVectors(model, None), Limits(), None) as server:
        yield server
