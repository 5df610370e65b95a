"""The routes: answers, and errors for wrong requests."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lightning_modules.vectors.pretrained import BiLM
from tests.pipeline.serving.conftest import Served

TEXTS = ["kana lona mina", "nuko"]


def test_embed_returns_what_encode_returns(served: Served, model: BiLM) -> None:
    raw = served.post("/embed", {"inputs": TEXTS, "normalize": False})
    scaled = served.post("/embed", {"inputs": TEXTS})

    assert raw.status == scaled.status == 200
    assert raw.headers["content-type"] == "application/json"
    found = np.array(raw.json, np.float32)
    np.testing.assert_array_equal(found, model.encode(TEXTS))
    np.testing.assert_array_equal(
        np.array(scaled.json, np.float32), model.encode(TEXTS, normalize=True)
    )


def test_a_single_string_is_a_batch_of_one(served: Served, model: BiLM) -> None:
    answer = served.post("/embed", {"inputs": TEXTS[0], "normalize": False})
    np.testing.assert_array_equal(np.array(answer.json, np.float32), model.encode(TEXTS[:1]))


@pytest.mark.parametrize("layers", ["top", "mean", "all", "concat", 0, [-1, 0]])
def test_layers_and_pooling_are_those_of_encode(served: Served, model: BiLM, layers: Any) -> None:
    body = {"inputs": TEXTS, "layers": layers, "pooling": "direction", "normalize": False}
    found = np.array(served.post("/embed", body).json, np.float32)
    np.testing.assert_array_equal(found, model.encode(TEXTS, layers=layers, pooling="direction"))


@pytest.mark.parametrize("unit", ["token", "word"])
def test_embed_all_returns_a_vector_for_each_unit(served: Served, model: BiLM, unit: Any) -> None:
    texts = [["kana", "lona"], "nuko mina kako"]
    answer = served.post("/embed_all", {"inputs": texts, "unit": unit, "layers": "concat"})

    for found, own in zip(answer.json, model.embed(texts, unit=unit, layers="concat"), strict=True):
        np.testing.assert_array_equal(np.array(found, np.float32), own.vectors[0])


def test_openai_clients_get_numbers_or_base64(served: Served, model: BiLM) -> None:
    body = {"input": TEXTS, "model": "any", "user": "someone"}
    numbers = served.post("/v1/embeddings", body).json
    encoded = served.post("/v1/embeddings", {**body, "encoding_format": "base64"}).json

    expected = model.encode(TEXTS, normalize=True)
    assert numbers["object"] == "list"
    assert numbers["model"] == "tiny"
    assert numbers["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    for index in range(2):
        first, second = numbers["data"][index], encoded["data"][index]
        assert first["index"] == second["index"] == index
        np.testing.assert_array_equal(np.array(first["embedding"], np.float32), expected[index])
        decoded = np.frombuffer(base64.b64decode(second["embedding"]), "<f4")
        np.testing.assert_array_equal(decoded, expected[index])


def test_tokenize_returns_the_tokens_that_embed_all_gives_vectors(
    served: Served, model: BiLM
) -> None:
    [tokens] = served.post("/tokenize", {"inputs": "kana lona", "add_special_tokens": True}).json
    [own] = model.embed(["kana lona"])
    assert [(t["text"], t["start"], t["stop"], t["id"]) for t in tokens] == [
        (t.spelling, t.start, t.end, t.id) for t in own.tokens
    ]


def test_info_health_and_metrics(served: Served) -> None:
    served.post("/embed", {"inputs": TEXTS})
    assert served.get("/info").json == {"model_id": "tiny"}
    assert served.get("/health").status == 200
    assert served.metric('biloom_requests_total{route="/embed",status="200"}') >= 1
    assert served.metric('biloom_texts_total{source="model"}') >= 2
    assert served.metric("biloom_batch_texts_count") >= 1
    assert served.metric("biloom_queue_texts") == 0


WRONG = [
    (b'{"inputs": []}', 400, "Empty", "`inputs` is empty; send at least one text"),
    (b'{"inputs": ""}', 400, "Empty", "`inputs` is empty"),
    (b'{"inputs": ["ka", ""]}', 400, "Empty", "`inputs[1]` is empty"),
    (b'{"inputs": ["ka", []]}', 400, "Empty", "`inputs[1]` is empty"),
    (b'{"inputs": [["", " "]]}', 400, "Empty", "`inputs[0]` is empty"),
    (b'{"inputs": ["ka", " "]}', 400, "Empty", "`inputs[1]` has no tokens"),
    (b'{"inputs": 3}', 422, "Validation", "`inputs`: must be a string, or a list of strings or"),
    (b'{"inputs": ["a", 1]}', 422, "Validation", "`inputs`: must be a string, or a list"),
    (b'{"inputs": [["a", 1]]}', 422, "Validation", "`inputs`: must be a string, or a list"),
    (b'{"inputs": NaN}', 422, "Validation", "`inputs`: must be a string, or a list"),
    (b"{}", 422, "Validation", "`inputs`: Field required"),
    (b"[]", 422, "Validation", "the request: Input should be an object"),
    (b'{"inputs": "ka"', 400, "Validation", "the request is not JSON: EOF while parsing"),
    (b"", 400, "Validation", "the request is not JSON: EOF while parsing"),
    (b'{"inputs": "\xff"}', 400, "Validation", "the request is not JSON: invalid unicode"),
    (b'{"inputs": "\\ud800"}', 400, "Validation", "the request is not JSON: unexpected end of hex"),
    (b"[" * 100_000, 400, "Validation", "the request is not JSON: recursion limit exceeded"),
    (b'{"inputs": "ka", "x": 1}', 422, "Validation", "`x` is not a field of this request; its"),
    (
        b'{"inputs": "ka", "normalize": 1}',
        422,
        "Validation",
        "`normalize`: Input should be a valid",
    ),
    (
        b'{"inputs": "ka", "prompt_name": "q"}',
        422,
        "Validation",
        "`prompt_name`: Input should be null",
    ),
    (b'{"inputs": "ka", "dimensions": 4}', 422, "Validation", "`dimensions`: Input should be null"),
    (
        b'{"inputs": "ka", "layers": true}',
        422,
        "Validation",
        "`layers`: must be one of all, top, mean",
    ),
    (b'{"inputs": "ka", "layers": 9}', 422, "Validation", "layers: this model has no layer 9;"),
    (
        b'{"inputs": "ka", "pooling": "max"}',
        422,
        "Validation",
        "`pooling`: Input should be 'direction'",
    ),
    (
        b'{"inputs": "ka", "truncation_direction": "left"}',
        422,
        "Validation",
        "`truncation_direction`:",
    ),
]


@pytest.mark.parametrize(("body", "status", "kind", "message"), WRONG)
def test_a_wrong_request_is_refused(
    served: Served, body: bytes, status: int, kind: str, message: str
) -> None:
    answer = served.post("/embed", body)
    assert answer.status == status
    assert answer.json["error_type"] == kind
    assert answer.json["error"].startswith(message)


def test_errors_of_openais_route_have_its_form(served: Served) -> None:
    answer = served.post("/v1/embeddings", {"input": []})
    assert answer.status == 400
    assert answer.json == {
        "message": "`inputs` is empty; send at least one text",
        "code": 400,
        "type": "Empty",
    }


def test_requests_of_other_types_methods_and_routes_are_refused(served: Served) -> None:
    data = b'{"inputs": "ka"}'
    other = served.send("POST", "/embed", data, {"Content-Type": "text/plain"})
    assert other.status == 415
    assert other.json["error"] == "send the header `Content-Type: application/json`"
    assert served.get("/embed").status == 405
    missing = served.get("/nothing")
    assert missing.status == 404
    assert missing.json == {"error": "Not Found", "error_type": "Validation"}
    assert served.send("POST", "/embed/", data).status == 404
    assert served.metric('biloom_requests_total{route="other",status="404"}') >= 1


def test_limits_of_size(start: Callable[..., Served], model: BiLM) -> None:
    small = start(model, max_client_batch_size=2, max_input_tokens=3, payload_limit=100)

    many = small.post("/embed", {"inputs": ["ka", "lo", "mi"]})
    assert many.status == 413
    assert many.json == {
        "error": "batch size 3 > maximum allowed batch size 2",
        "error_type": "Validation",
    }
    long = small.post("/embed", {"inputs": ["ka", "kana lona mina nuna"]})
    assert long.status == 413
    assert long.json["error"] == (
        "`inputs[1]` has 4 tokens, but at most 3 are allowed; shorten it, or set `truncate`"
    )
    huge = small.post("/embed", {"inputs": "k" * 100})
    assert huge.status == 413
    assert huge.json["error"] == "the request has more than 100 bytes"
    chunks = iter([b'{"inputs": "', b"k" * 200, b'"}'])
    chunked = small.send(
        "POST",
        "/embed",
        chunks,  # type: ignore[arg-type]
        {"Content-Type": "application/json"},
    )
    assert chunked.status == 413
    assert chunked.json["error"] == "the request has more than 100 bytes"


def test_a_long_text_is_truncated_on_request(start: Callable[..., Served], model: BiLM) -> None:
    small = start(model, max_input_tokens=3)
    body = {"inputs": "kana lona mina nuna", "truncate": True, "normalize": False}
    found = np.array(small.post("/embed", body).json, np.float32)
    np.testing.assert_array_equal(found, model.encode(["kana lona mina"]))


def test_an_answer_has_a_largest_size(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.serving.service.ANSWER_VALUES", 40)
    answer = served.post("/embed_all", {"inputs": ["kana", "lona"]})
    assert answer.status == 413
    assert answer.json["error"] == (
        "the answer has more than 40 numbers; send fewer or shorter texts, or ask for fewer layers"
    )
    assert served.post("/tokenize", {"inputs": "ka " * 10}).status == 200
    assert served.post("/tokenize", {"inputs": "ka " * 11}).status == 413


def test_every_route_has_the_limit_of_texts(start: Callable[..., Served], model: BiLM) -> None:
    served = start(model, max_client_batch_size=2)
    for route in ("/embed", "/embed_all", "/tokenize"):
        assert served.post(route, {"inputs": ["ka", "lo", "mi"]}).status == 413


def test_a_key_is_needed_everywhere_except_for_health(
    start: Callable[..., Served], model: BiLM
) -> None:
    closed = start(model, key="secret")
    for answer in (
        closed.post("/embed", {"inputs": "ka"}),
        closed.post("/embed", {"inputs": "ka"}, Authorization="Bearer other"),
        closed.post("/embed", {"inputs": "ka"}, Authorization="Bearer säcret"),
        closed.get("/info"),
        closed.get("/metrics"),
    ):
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json["error_type"] == "Unauthorized"
    for scheme in ("Bearer", "bearer"):
        asked = closed.post("/embed", {"inputs": "ka"}, Authorization=f"{scheme} secret")
        assert asked.status == 200
    assert closed.get("/health").status == 200


def test_the_error_of_a_model_is_answered(
    start: Callable[..., Served], model: BiLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_modules.vectors.streams import VectorError

    def fail(*_: Any) -> None:
        raise VectorError("a layer of a text")

    monkeypatch.setattr(BiLM, "embed_batches", fail)
    answer = start(model).post("/embed", {"inputs": ["ka", "lo"]})
    assert answer.status == 424
    assert answer.json["error_type"] == "Backend"
    assert answer.json["error"].startswith(
        "inference failed: a layer of a text: the model computes"
    )


def test_an_internal_error_is_answered_and_counted(
    start: Callable[..., Served], model: BiLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("a fault of the program")

    monkeypatch.setattr(BiLM, "embed_batches", fail)
    served = start(model)
    answer = served.post("/embed", {"inputs": "ka"})
    assert answer.status == 500
    assert answer.json == {
        "error": "internal error; its traceback is in the server's log",
        "error_type": "Backend",
    }
    assert served.metric('biloom_requests_total{route="/embed",status="500"}') == 1
