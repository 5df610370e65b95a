"""A small job, and a proxy that delays, refuses and cuts requests on their way to a store."""

import http.client
import random
import shutil
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.stored_run import StoredRun

ERROR = "<Error><Code>{}</Code><Message>made by the test</Message></Error>"
NO_COPIES = ("transfer-encoding", "connection", "content-length")
"""Headers of an answer that the proxy sets itself."""


class Proxy(ThreadingHTTPServer):
    """Forwards requests to ``store``, unless ``fault`` names what is to happen to one.

    Attributes:
        fault: function of the number of a request, its method and its path. It returns a status with a
            code, as in ``503 SlowDown``, or

            - "": nothing happens,
            - "delay": the request waits for 0.5 seconds,
            - "cut request": the connection is reset before the request is forwarded,
            - "cut answer": the request is carried out, and the connection is reset instead of an answer,
            - "half answer": half of the answer's body is sent.
        counted: number of requests by fault.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, store: str) -> None:
        super().__init__(("127.0.0.1", 0), Forwarder)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.store = urlsplit(store).netloc
        self.mutex = threading.Lock()
        self.pass_on()

    def pass_on(self) -> None:
        """Forward all requests from now on."""
        self.fault: Callable[[int, str, str], str] = lambda number, method, path: ""
        self.number = 0
        self.counted: Counter[str] = Counter()

    def draw(self, seed: int, share: float, *faults: str) -> None:
        """Let a share of the requests fail from now on, by the seed and the number of the request."""
        self.pass_on()

        def fault(number: int, method: str, path: str) -> str:
            draw = random.Random(f"{seed} {number}")
            return draw.choice(faults) if draw.random() < share else ""

        self.fault = fault

    def fault_of(self, method: str, path: str) -> str:
        with self.mutex:
            self.number += 1
            fault = self.fault(self.number, method, path)
            self.counted[fault] += 1
        return fault

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that was killed or that gave up


class Forwarder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault_of(self.command, self.path)
        if fault == "delay":
            time.sleep(0.5)
        if fault == "cut request":
            self.cut()
        elif fault[:3].isdigit():
            status, _, code = fault.partition(" ")
            data = b"" if self.command == "HEAD" else ERROR.format(code).encode()
            self.answer(int(status), [("Content-Type", "application/xml")], data, len(data))
        else:
            self.carry_out(body, fault)

    def do_GET(self) -> None:
        self.forward()

    def do_HEAD(self) -> None:
        self.forward()

    def do_PUT(self) -> None:
        self.forward()

    def do_POST(self) -> None:
        self.forward()

    def do_DELETE(self) -> None:
        self.forward()

    def carry_out(self, body: bytes, fault: str) -> None:
        store = http.client.HTTPConnection(self.server.store, timeout=60)
        try:
            store.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "expect":
                    store.putheader(name, value)
            store.endheaders(body)
            found = store.getresponse()
            data = found.read()
        except OSError:
            self.cut()  # the store is away
            return
        finally:
            store.close()
        if fault == "cut answer":
            self.cut()
            return
        size = int(found.headers.get("Content-Length") or len(data))
        if fault == "half answer":
            data = data[: len(data) // 2]
        headers = [(k, v) for k, v in found.headers.items() if k.lower() not in NO_COPIES]
        self.answer(found.status, headers, data, size)
        if fault == "half answer":
            self.cut()

    def answer(self, status: int, headers: list[tuple[str, str]], data: bytes, size: int) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(data)

    def cut(self) -> None:
        """Reset the connection."""
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            at_once = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            self.connection.close()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def proxy_server(seaweedfs: str) -> Iterator[Proxy]:
    with Proxy(seaweedfs) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(proxy_server: Proxy) -> Iterator[Proxy]:
    """A proxy before SeaweedFS, which forwards all requests unless the test says otherwise."""
    proxy_server.pass_on()
    yield proxy_server
    proxy_server.pass_on()


@pytest.fixture(scope="module")
def far(proxy_server: Proxy, bucket_at: Any) -> Iterator[str]:
    """The URL of a bucket behind the proxy."""
    with bucket_at(proxy_server.address) as url:
        yield url


CONFIG = """\
tokenizer: {kind: word}
prepare:
  input: "ROOT/text.txt"
  valid_fraction: 0.1
  unit_bytes: 2048
  part_tokens: 300
  shard_tokens: 300
model:
  recurrent: {hidden: 8, projection: 4}
  head: {cutoffs: [20, 50]}
train: {rows: 3, unroll: 5, steps: 60, warmup_steps: 5, compile: "off", device: cpu, data_workers: 0,
        checkpoint_steps: 5, evaluate_steps: 60, log_steps: 5}
embed: {sample: 200, dtype: float32}
runner: {options: {mode: in_memory}}
tracking: {wandb: "off"}
"""


@pytest.fixture(scope="session")
def job(tiny: Any, tmp_path_factory: pytest.TempPathFactory, biloom: Any) -> StoredRun:
    root = tmp_path_factory.mktemp("job")
    shutil.copy(tiny.root / "corpus.txt", root / "text.txt")
    (root / "run.yaml").write_text(CONFIG.replace("ROOT", str(root)))
    made = StoredRun(root)
    answer = biloom.run("run", *made.arguments(str(root / "disk")))
    assert (answer.returncode, answer.stderr) == (0, "")
    return made
