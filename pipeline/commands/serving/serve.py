"""`biloom serve`: a model or a vector cache as an HTTP server."""

import os
from typing import Any

from lightning_modules.serving.source import ServedVectors
from lightning_modules.vectors.pretrained import BiLM
from pipeline.console import Console
from pipeline.lifecycle.stage import require
from pipeline.serving.limits import Limits, ServeError
from pipeline.training.device import resolve_device
from pipeline.version import biloom_version
from preprocess.files.manifest import ManifestError, read_manifest
from preprocess.vectors.cache import VectorCache

KEY = "BILOOM_API_KEY"
"""Environment variable with the key that clients must send."""
NEEDS = dict.fromkeys(("starlette", "uvicorn", "orjson", "prometheus_client"), "serve")
LOOPBACK = ("127.", "::1")


def serve(
    path: str, model: str | None, host: str, port: int, limits: Limits, fixed_batches: bool
) -> None:
    """Serve vectors until a signal.

    Args:
        path: folder or URL of a model or of a vector cache, or a repository of the Hugging Face hub.
        model: model for the texts that are not in the cache.
        host: address to listen at.
        port: port; 0 means a free one.
        limits: limits of requests.
        fixed_batches: as in `ServedVectors`.

    Raises:
        StageError: a package is not installed.
        ServeError: the key is not valid, the address cannot be used, or the paths do not fit.
        ManifestError, ModelError, CacheError: a folder is missing or damaged.
    """
    require("serve", NEEDS)
    from pipeline.serving.application import application
    from pipeline.serving.server import listen, server_of, url
    from pipeline.serving.service import VectorService

    key = read_key()
    with listen(host, port) as bound:
        source = open_source(path, model, fixed_batches)
        console = Console()
        service = VectorService(source, limits)
        address = url(bound)
        console.stage("serve", path)
        if key is None and not bound.getsockname()[0].startswith(LOOPBACK):
            console.warn(
                f"everybody who reaches {address} can ask for vectors; set {KEY}, or use --host 127.0.0.1"
            )
        app = application(service, info(path, source, limits), key)
        server = server_of(app, lambda: console.line(f"listens at {address}"))
        server.run([bound])
        if not server.force_exit:
            service.close()
    console.line("stopped")


def read_key() -> str | None:
    """Return the key that clients must send; None if the environment has none.

    Raises:
        ServeError: the key is empty, or cannot be sent in a header.
    """
    key = os.environ.get(KEY)
    if key is not None and not (key.isascii() and key.isprintable() and key.split() == [key]):
        raise ServeError(
            f"{KEY} must be one or more printable ASCII characters without spaces; unset it to serve "
            "without a key"
        )
    return key


def open_source(path: str, model: str | None, fixed_batches: bool) -> ServedVectors:
    """Open the model or the cache at a path.

    Raises:
        ServeError: the folder holds something else, or ``model`` is given beside a model.
        ManifestError, ModelError, CacheError: a folder is missing or damaged.
    """
    try:
        stage = read_manifest(path).stage
    except ManifestError:
        stage = (
            "export"  # a repository of the hub; other paths are refused when the model is loaded
        )
    if stage == "embed":
        loaded = _load(model) if model else None
        cache = VectorCache.open(path, loaded.content if loaded else None)
        return ServedVectors(loaded, cache, fixed_batches)
    if stage != "export":
        raise ServeError(
            f"{path} holds a finished '{stage}'; name a model folder, which `biloom export` writes, or a "
            "vector cache, which `biloom embed` writes"
        )
    if model:
        raise ServeError(f"--model needs a vector cache, but {path} is a model; leave out --model")
    return ServedVectors(_load(path), None, fixed_batches)


def _load(path: str) -> BiLM:
    return BiLM.from_pretrained(path).to(resolve_device("auto"))


def info(path: str, source: ServedVectors, limits: Limits) -> dict[str, Any]:
    """Return the answer of /info, with the fields of text-embeddings-inference where they apply."""
    model, cache = source.model, source.cache
    found: dict[str, Any] = {
        "model_id": path.rstrip("/").rpartition("/")[2],
        "model_sha": model.content if model else cache.model if cache else "",
        "model_dtype": "float32",
        "model_type": {"embedding": {"pooling": "mean"}},
        "max_concurrent_requests": limits.max_concurrent_requests,
        "max_input_length": limits.max_input_tokens,
        "max_batch_tokens": limits.max_batch_tokens,
        "max_client_batch_size": limits.max_client_batch_size,
        "auto_truncate": False,
        "version": biloom_version(),
        "layers": cache.layers if cache else model.depth if model else 0,
        "dim": cache.dim if cache else model.dim if model else 0,
        "fixed_batches": source.fixed_batches,
    }
    if cache is not None:
        found["cache"] = {"texts": len(cache), "unit": cache.unit, "dtype": cache.dtype.name}
    return found
