"""Many clients at once, clients that go away or are slow, overload, and the end of the server."""

import gc
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_modules.serving.source import Choice, Floats, ServedVectors
from lightning_modules.vectors.pretrained import BiLM
from pipeline.serving.limits import WAITING
from preprocess.tokenizers.aligned_text import Tokenised
from preprocess.vectors.cache import VectorCache
from tests.conftest import Tiny
from tests.pipeline.serving.conftest import Answer, Served

SECONDS = 60


class Held(ServedVectors):
    """Computes nothing until `go` is set, and keeps what it computed."""

    def __init__(self, model: BiLM) -> None:
        super().__init__(model, None)
        self.go, self.begun = threading.Event(), threading.Event()
        self.computed: list[str] = []

    def compute(self, texts: Sequence[Tokenised], choice: Choice, tokens: int) -> list[Floats]:
        self.begun.set()
        assert self.go.wait(SECONDS)
        self.computed += [one.text for one in texts]
        return super().compute(texts, choice, tokens)


@pytest.fixture
def held(model: BiLM) -> Iterator[Held]:
    source = Held(model)
    yield source
    source.go.set()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "the condition does not become true"
        time.sleep(0.01)


def request(text: str, **fields: object) -> bytes:
    body = json.dumps({"inputs": text, **fields}).encode()
    head = f"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def refused_beside(served: Served, held: Held, route: str, text: str) -> Answer:
    """Return the refusal of a request while another one is in progress, which is then answered."""
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(served.post, route, {"inputs": "kana lona"})
        assert held.begun.wait(SECONDS)
        refused = served.post(route, {"inputs": text})
        held.go.set()
        assert first.result().status == 200
    assert refused.status == 429
    assert refused.headers["retry-after"] == "1"
    return refused


def test_a_text_has_equal_bytes_alone_and_among_many(
    start: Callable[..., Served], model: BiLM
) -> None:
    served = start(ServedVectors(model, None, fixed_batches=True))
    words = ["kana", "lona", "mina", "nuko", "tena"]
    texts = [" ".join(words[(n + k) % 5] for k in range(1 + n % 7)) for n in range(60)]
    alone = {one: served.post("/embed", {"inputs": one}).data for one in dict.fromkeys(texts)}
    batches = served.metric("biloom_batch_texts_count")

    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda one: served.post("/embed", {"inputs": one}), texts))

    assert [one.data for one in answers] == [alone[one] for one in texts]
    assert served.metric("biloom_batch_texts_count") - batches < len(texts)


def test_the_texts_of_a_client_that_goes_away_are_not_computed(
    start: Callable[..., Served], held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    served = start(held)
    with ThreadPoolExecutor(2) as clients:
        first = clients.submit(served.post, "/embed", {"inputs": "first"})
        assert held.begun.wait(SECONDS)
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(request("gone"))
            until(lambda: served.metric("biloom_queue_texts") == 1)
        until(lambda: served.metric('biloom_requests_total{route="/embed",status="499"}') == 1)
        after = clients.submit(served.post, "/embed", {"inputs": "after"})
        until(lambda: served.metric("biloom_queue_texts") == 2)
        held.go.set()
        assert first.result().status == after.result().status == 200
    assert held.computed == ["first", "after"]
    gc.collect()
    assert not caplog.records
    assert served.metric("biloom_requests_in_progress") == 0


def test_a_client_that_goes_away_while_it_sends_is_counted(served: Served) -> None:
    name = 'biloom_requests_total{route="/embed",status="499"}'
    before = served.metric(name)
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(request("kana")[:-3])
        until(lambda: served.metric("biloom_requests_in_progress") == 1)
    until(lambda: served.metric(name) == before + 1)
    assert served.post("/embed", {"inputs": "kana"}).status == 200


def test_a_client_that_sends_slowly_is_refused(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.serving.application.BODY_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(request("kana")[:-3])
        client.settimeout(SECONDS)
        answer = b""
        while part := client.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the request did not arrive within 0.2 seconds" in answer


def test_a_client_that_does_not_receive_its_answer_is_given_up(
    start: Callable[..., Served], model: BiLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.serving.errors.PART_SECONDS", 0.2)
    served = start(model)
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        # An answer of 4,000,000 numbers, which no buffer of a socket holds.
        client.sendall(request("kana", layers=[0] * (4_000_000 // model.dim)))
        until(lambda: served.metric('biloom_requests_total{route="/embed",status="499"}') == 1)
    assert served.metric("biloom_requests_in_progress") == 0
    assert served.post("/embed", {"inputs": "kana"}).status == 200


def test_an_answer_counts_until_it_is_sent(start: Callable[..., Served], model: BiLM) -> None:
    served = start(model, max_concurrent_requests=1)
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.settimeout(SECONDS)
        client.sendall(request("kana", layers=[0] * (4_000_000 // model.dim)))
        # The answer has begun.
        assert client.recv(12) == b"HTTP/1.1 200"
        assert served.metric("biloom_requests_in_progress") == 1
        assert served.post("/embed", {"inputs": "kana"}).status == 429
    until(lambda: served.metric("biloom_requests_in_progress") == 0)


def test_requests_above_the_limit_are_told_to_come_again(
    start: Callable[..., Served], held: Held
) -> None:
    served = start(held, max_concurrent_requests=1)
    refused = refused_beside(served, held, "/embed", "kana")
    assert refused.json == {
        "error": "1 requests are in progress, which is the limit; try again later",
        "error_type": "Overloaded",
    }
    assert served.post("/embed", {"inputs": "kana"}).status == 200


@pytest.mark.parametrize(("kind", "most"), [("bytes", 40), ("tokens", 3), ("values", 40)])
def test_what_all_requests_hold_is_bounded(
    start: Callable[..., Served],
    held: Held,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    most: int,
) -> None:
    monkeypatch.setitem(WAITING, kind, most)
    served = start(held)
    refused = refused_beside(served, held, "/embed_all", "mina nuko")
    assert refused.json["error"] == (
        f"the requests in progress have too many {kind}; try again later"
    )
    # A request alone is never refused, however much it holds.
    assert served.post("/embed_all", {"inputs": "mina nuko " * 9}).status == 200


def test_another_request_gets_its_turn_between_the_texts_of_a_large_one(
    start: Callable[..., Served], model: BiLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.serving.service.PART_CHARACTERS", 10)
    source, order, go = ServedVectors(model, None), [], threading.Event()
    prepare = source.prepare

    def recorded(texts: Sequence[str], *others: Any) -> Any:
        order.append(list(texts))
        if len(order) == 1:
            assert go.wait(SECONDS)
        return prepare(texts, *others)

    monkeypatch.setattr(source, "prepare", recorded)
    served = start(source)
    with ThreadPoolExecutor(2) as clients:
        large = clients.submit(served.post, "/embed", {"inputs": ["kana", "lona", "mina nuko"]})
        until(lambda: bool(order))
        small = clients.submit(served.post, "/embed", {"inputs": "tena"})
        until(lambda: served.metric("biloom_requests_in_progress") == 2)
        # The small request has been read and waits for the thread.
        time.sleep(0.1)
        go.set()
        assert large.result().status == small.result().status == 200
    assert order == [["kana", "lona"], ["tena"], ["mina nuko"]]


def test_requests_in_progress_are_told_that_the_server_stops(
    start: Callable[..., Served],
    held: Held,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("pipeline.serving.server.STOP_SECONDS", 1)
    served = start(held)
    with ThreadPoolExecutor(1) as clients:
        asked = clients.submit(served.post, "/embed", {"inputs": "kana"})
        assert held.begun.wait(SECONDS)
        served.stop()
        answer = asked.result()
    held.go.set()
    assert answer.status == 503
    assert answer.json == {
        "error": "the server stops; ask another one",
        "error_type": "Unhealthy",
    }
    assert not any(record.exc_info for record in caplog.records)


def test_a_thread_that_has_ended_is_told(start: Callable[..., Served], model: BiLM) -> None:
    served = start(model)
    served.service.close()
    answer = served.get("/health")
    assert answer.status == 503
    assert answer.json["error_type"] == "Unhealthy"


@pytest.mark.parametrize(
    "data", [b"\x00" * 100, b"GET\r\n\r\n", b"POST /embed HTTP/1.1\r\nContent-Length: -1\r\n\r\n"]
)
def test_what_is_not_http_is_refused_and_the_server_goes_on(served: Served, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(data)
        client.settimeout(SECONDS)
        assert client.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert served.get("/health").status == 200


def test_a_cache_and_what_is_not_in_it(
    start: Callable[..., Served], tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("kana lona\n", encoding="utf-8")
    texts, model = f"embed.input={tmp_path}/texts.txt", f"embed.model={trained}/export"
    tiny.run("embed", tmp_path, texts, model, "embed.layers=top", "embed.dtype=float32")
    with VectorCache.open(tmp_path / "embed") as cache:
        served = start(ServedVectors(None, cache))
        found = served.post("/embed_all", {"inputs": "kana lona"})
        expected = cache["kana lona"].transpose(1, 0, 2).reshape(1, 2, -1)
        np.testing.assert_array_equal(np.array(found.json, np.float32), expected)
        absent = served.post("/embed", {"inputs": ["kana lona", "mina"]})
        assert absent.status == 404
        assert absent.json["error"].startswith("`inputs[1]` is not in the vector cache")
        chosen = served.post("/embed", {"inputs": "kana lona", "layers": "top"})
        assert chosen.status == 422
        assert served.post("/tokenize", {"inputs": "kana lona"}).status == 404
        assert served.metric('biloom_texts_total{source="cache"}') == 1
        both = start(ServedVectors(BiLM.from_pretrained(trained / "export"), cache))
        [tokens] = both.post("/tokenize", {"inputs": "kana lona"}).json
        assert [token["text"] for token in tokens] == ["kana", "lona"]
