"""`biloom serve`: what it opens, its messages, and its end."""

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.serving.source import ServedVectors
from lightning_modules.vectors.pretrained import BiLM
from pipeline.cli import main
from pipeline.commands.serving.serve import info, open_source
from pipeline.serving.limits import Limits, ServeError
from pipeline.serving.server import listen, server_of, url
from tests.conftest import Command, Running, Tiny


@contextmanager
def started(biloom: Command, *arguments: object) -> Iterator[tuple[Running, str, int]]:
    """Start a server; yield its process, its host and its port."""
    with biloom.start("serve", *arguments, "--port", 0) as process:
        try:
            assert process.stdout is not None
            [address] = [
                line.split("listens at http://")[1].strip()
                for line in islice(process.stdout, 2)
                if "listens at" in line
            ]
            host, port = address.split(":")
            yield process, host, int(port)
        finally:
            process.kill()


def embed(host: str, port: int, texts: list[str]) -> bytes:
    connection = HTTPConnection(host, port, timeout=60)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/embed", json.dumps({"inputs": texts}), headers)
        return connection.getresponse().read()
    finally:
        connection.close()


def in_progress(host: str, port: int) -> float:
    """Return the number of requests in progress."""
    connection = HTTPConnection(host, port, timeout=60)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    [value] = [line.split()[1] for line in lines if line.startswith("biloom_requests_in_progress ")]
    return float(value)


def is_closed(host: str, port: int) -> bool:
    """Return whether a server takes no new connections."""
    try:
        socket.create_connection((host, port), timeout=60).close()
    except ConnectionError:
        return True
    return False


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "the condition does not become true"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_requests_in_progress(
    biloom: Command, trained: Path, number: signal.Signals
) -> None:
    with started(biloom, trained / "export") as (process, host, port):
        first = embed(host, port, ["kana lona"])
        assert len(json.loads(first)) == 1
        # A request that has begun: its last bytes follow after the signal.
        body = json.dumps({"inputs": ["kana lona"]}).encode()
        head = f"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        with socket.create_connection((host, port)) as client:
            client.sendall(head.encode() + b"\r\n\r\n" + body[:-1])
            until(lambda: in_progress(host, port) == 1)
            process.send_signal(number)
            until(lambda: is_closed(host, port))
            client.sendall(body[-1:])
            client.settimeout(60)
            answer = b""
            while part := client.recv(1 << 16):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(first)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.strip() == "stopped"


def test_a_server_runs_in_a_thread_of_a_program(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import uvicorn

    servers: list[uvicorn.Server] = []
    run = uvicorn.Server.run

    def kept(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        servers.append(self)
        run(self, sockets)

    monkeypatch.setattr(uvicorn.Server, "run", kept)
    codes: list[int] = []
    arguments = ["serve", str(trained / "export"), "--port", "0", "--host", "0.0.0.0"]
    thread = threading.Thread(target=lambda: codes.append(main(arguments)))
    thread.start()
    while not (servers and servers[0].started):
        assert thread.is_alive()
        time.sleep(0.05)
    servers[0].should_exit = True
    thread.join()
    assert codes == [0]
    shown = capsys.readouterr().out
    assert "listens at http://0.0.0.0:" in shown
    assert "can ask for vectors; set BILOOM_API_KEY, or use --host 127.0.0.1" in shown


def test_a_model_or_a_cache_is_opened_by_its_manifest(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("kana lona\n", encoding="utf-8")
    model = f"{trained}/export"
    tiny.run("embed", tmp_path, f"embed.input={tmp_path}/texts.txt", f"embed.model={model}")
    cache = f"{tmp_path}/embed"

    alone = open_source(model, None, False)
    assert (alone.model is None, alone.cache) == (False, None)
    stored = open_source(cache, None, False)
    assert (stored.model, stored.cache is None) == (None, False)
    both = open_source(cache, model, True)
    assert both.model is not None
    assert both.cache is not None
    shown = info(f"{cache}/", both, Limits())
    assert shown["model_id"] == "embed"
    assert shown["model_sha"] == both.model.content
    assert shown["cache"] == {"texts": 1, "unit": "token", "dtype": "float16"}
    with pytest.raises(
        ServeError, match=r"^--model needs a vector cache, but .* is a model; leave out"
    ):
        open_source(model, model, False)
    with pytest.raises(ServeError, match="holds a finished 'prepare'; name a model folder, which"):
        open_source(f"{tiny.root}/prepare", None, False)


def test_info_has_the_names_of_text_embeddings_inference(trained: Path) -> None:
    model = BiLM.from_pretrained(trained / "export")
    shown = info("runs/tiny/export", ServedVectors(model, None), Limits(max_input_tokens=7))
    assert shown["model_id"] == "export"
    assert shown["max_input_length"] == 7
    assert (shown["layers"], shown["dim"]) == (model.depth, model.dim)
    assert "cache" not in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "70000"], "--port: 70000 is not a port; write 0 (a free one) to 65535"),
        (["--host", "192.0.2.1"], "the server cannot listen at 192.0.2.1, port 3000 ("),
        (
            ["--host", "no.such.host.invalid"],
            "the server cannot listen at no.such.host.invalid, port",
        ),
        (["--max-batch-tokens", "0"], "--max-batch-tokens: 0 is too small; write 1 or more"),
        (["--payload-limit", "-1"], "--payload-limit: -1 is too small; write 1 or more"),
    ],
)
def test_mistakes_are_told_without_a_traceback(
    trained: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(trained / "export"), *options]) == 2
    assert capsys.readouterr().err.startswith(f"biloom: {message}")


def test_a_taken_port_is_told(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as bound:
        bound.listen()
        port = url(bound).rpartition(":")[2]
        assert main(["serve", str(trained / "export"), "--port", port]) == 2
    assert f"cannot listen at 127.0.0.1, port {port} (Address already in use)" in (
        capsys.readouterr().err
    )


def test_a_port_that_another_server_takes_first_is_told() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None: ...

    with listen("127.0.0.1", 0) as first:
        port = int(url(first).rpartition(":")[2])
        # Linux lets both bind the address as long as none of them listens.
        with listen("127.0.0.1", port) as second:
            first.listen()
            with pytest.raises(ServeError, match=f"cannot listen at 127.0.0.1, port {port} "):
                server_of(application).run([second])  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["", "two words", "schlüssel", "line\n"])
def test_a_key_that_no_header_can_carry_is_refused(
    trained: Path, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BILOOM_API_KEY", key)
    assert main(["serve", str(trained / "export")]) == 2
    assert "BILOOM_API_KEY must be one or more printable ASCII characters without spaces" in (
        capsys.readouterr().err
    )


def test_a_path_without_a_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tmp_path), "--port", "0"]) == 2
    assert f"{tmp_path} holds no finished" in capsys.readouterr().err


def test_an_address_of_ipv6_is_a_url() -> None:
    try:
        bound = listen("::1", 0)
    except ServeError:
        pytest.skip("no IPv6 on this machine")
    with bound:
        assert url(bound).startswith("http://[::1]:")
