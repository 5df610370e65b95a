"""Metrics of a server, in Prometheus's text format."""

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.responses import Response

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKENS = (16, 64, 256, 1024, 4096, 16384, 65536)


class Metrics:
    """Counts of one server.

    Args:
        waiting: returns the number of texts that wait.
        in_progress: returns the number of requests in progress.
    """

    def __init__(self, waiting: Callable[[], int], in_progress: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "biloom_requests",
            "Requests, by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "biloom_request_seconds",
            "Time from the beginning of a request to its answer.",
            ["route"],
            registry=registry,
            buckets=SECONDS,
        )
        self.texts = Counter(
            "biloom_texts",
            "Texts whose vectors were asked for, by source.",
            ["source"],
            registry=registry,
        )
        self._batch_texts = Histogram(
            "biloom_batch_texts", "Texts of a batch.", registry=registry, buckets=TEXTS
        )
        self._batch_tokens = Histogram(
            "biloom_batch_tokens", "Tokens of a batch.", registry=registry, buckets=TOKENS
        )
        waits = Gauge("biloom_queue_texts", "Texts that wait.", registry=registry)
        waits.set_function(waiting)
        works = Gauge("biloom_requests_in_progress", "Requests in progress.", registry=registry)
        works.set_function(in_progress)

    def on_batch(self, texts: int, tokens: int) -> None:
        """Count a batch."""
        self._batch_texts.observe(texts)
        self._batch_tokens.observe(tokens)

    def on_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request. Status 499 means that the client went away."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def response(self) -> Response:
        """Return the metrics."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)
