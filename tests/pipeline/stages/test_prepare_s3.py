"""Text and corpus on an object store that fails, is slow or goes away: moto's S3 server.

A corpus on a store is the one that a local disk would hold, or there is no manifest.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from preprocess.files import storage
from preprocess.files.manifest import check_files, read_manifest

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

Capture = pytest.CaptureFixture[str]
Answer = Callable[[str, list[tuple[str, str]]], Any]
BUCKET = "s3://prepared"


@dataclass
class Store:
    """A WSGI application in front of moto's, which can answer with errors or delays."""

    app: Any
    fails: Callable[[str, str], bool] = lambda method, path: False
    """Whether to answer 500 to a request, given its method and path."""
    delay: float = 0.0
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, environ: dict[str, Any], start: Answer) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.asked.append((method, path))
        time.sleep(self.delay)
        if self.fails(method, path):
            # Half of it is taken, as by a store that goes away meanwhile.
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) // 2)
            start("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"out of order"]
        return self.app(environ, start)

    def works(self) -> None:
        self.fails = lambda method, path: False
        self.delay = 0.0
        self.asked.clear()


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    import fsspec.config
    import s3fs
    from werkzeug.serving import make_server

    create, dispatcher = moto_server.create_backend_app, moto_server.DomainDispatcherApplication
    store = Store(dispatcher(create))
    serving = make_server("127.0.0.1", 0, store, threaded=True)
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    environment = pytest.MonkeyPatch()
    environment.setenv("FSSPEC_S3_ENDPOINT_URL", f"http://127.0.0.1:{serving.server_port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        environment.setenv(name, "test")
    environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
    # Where a failure lasts, trying again only takes time.
    environment.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.config.set_conf_env(fsspec.config.conf)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("prepared")
    yield store
    fsspec.config.conf.pop("s3", None)
    s3fs.S3FileSystem.clear_instance_cache()
    environment.undo()
    serving.shutdown()
    thread.join()


@pytest.fixture
def store(server: Store) -> Iterator[Store]:
    """The store, which works until a test lets it fail."""
    server.works()
    yield server
    server.works()


@dataclass(frozen=True)
class Corpus:
    """Raw text on the disk and on the store, and the content hash of the corpus prepared locally."""

    raw: Path
    tokenizer: Path
    content: str

    def arguments(self, output: str, *overrides: str) -> list[str]:
        words = [
            "prepare",
            f"prepare.input={BUCKET}/raw/*",
            f"prepare.tokenizer={self.tokenizer}",
            "prepare.unit_bytes=4096",
            "prepare.part_tokens=200",
            "prepare.shard_tokens=200",
            "tokenizer.kind=char",
            "runner.options.mode=in_memory",
            f"run.output={output}",
            *overrides,
        ]
        # An override takes the place of the one here, because a key may be set once only.
        return [*{word.partition("=")[0]: word for word in words}.values()]


@pytest.fixture(scope="module")
def corpus(server: Store, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("s3")
    (root / "raw").mkdir()
    draw = random.Random(3)
    for name in ("a.txt", "b.txt", "c.jsonl"):
        lines = [
            " ".join(draw.choices(("ka", "水", "נו"), k=draw.randint(1, 9))) for _ in range(90)
        ]
        text = "".join((json.dumps({"text": x}) if "j" in name else x) + "\n" for x in lines)
        (root / "raw" / name).write_text(text, encoding="utf-8")
        storage.write_bytes(f"{BUCKET}/raw/{name}", text.encode())
    local = Corpus(root / "raw", root / "tokenizer", "").arguments(
        str(root), f"prepare.input={root}/raw/*"
    )
    assert main(["tokenizer", *local[1:]]) == 0
    assert main(local) == 0
    content = read_manifest(f"{root}/prepare", "prepare").content
    return Corpus(root / "raw", root / "tokenizer", content)


def names_in(output: str) -> list[str]:
    import fsspec

    fs, inner = fsspec.core.url_to_fs(output)
    fs.invalidate_cache()
    return [name.removeprefix(f"{inner}/") for name in fs.find(inner)]


def assert_whole(output: str, corpus: Corpus) -> None:
    manifest = read_manifest(f"{output}/prepare", "prepare")
    assert manifest.content == corpus.content
    assert check_files(f"{output}/prepare", manifest) == []
    assert not [name for name in names_in(output) if "_work" in name or "tmp" in name]


def test_a_corpus_on_a_store_equals_one_on_a_disk(corpus: Corpus, store: Store) -> None:
    output = f"{BUCKET}/plain"
    assert main(corpus.arguments(output)) == 0
    assert_whole(output, corpus)
    puts = [path for method, path in store.asked if method == "PUT"]
    final = [path for path in puts if "_work" not in path]
    assert len(final) == len(set(final)), "what is final is put once"
    assert final[-1].endswith("/prepare/manifest.json")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A client with its default number of retries."""
    import s3fs

    with monkeypatch.context() as patched:
        patched.delenv("AWS_MAX_ATTEMPTS")
        s3fs.S3FileSystem.clear_instance_cache()
        yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.usefixtures("patient")
def test_occasional_failures_are_retried(corpus: Corpus, store: Store) -> None:
    failed: set[tuple[str, str]] = set()

    def now_and_then(method: str, path: str) -> bool:
        first = (method, path) not in failed
        if len(store.asked) % 20 == 0:
            failed.add((method, path))
        return first and (method, path) in failed

    store.fails = now_and_then
    assert main(corpus.arguments(f"{BUCKET}/flaky")) == 0
    assert len(failed) > 3
    store.works()
    assert_whole(f"{BUCKET}/flaky", corpus)


PUTS = ("parts/train-000002-000.bin", "train-000001-000.bin", "manifest.json")
WORK = ("lock.json", "asked.json", "hashes/", "units/000001", "drops/", "groups/000000")
FINAL = ("train-000000-000.len", "counts.npy", "inputs.jsonl", "config.yaml", "stats.json")


@pytest.mark.parametrize(
    "name", [*PUTS, *(pytest.param(name, marks=pytest.mark.slow) for name in (*WORK, *FINAL))]
)
def test_a_put_that_fails_ends_with_a_message_and_a_rerun_writes_the_same_bytes(
    name: str, corpus: Corpus, store: Store, capsys: Capture
) -> None:
    output = f"{BUCKET}/broken-{name.replace('/', '-')}"
    store.fails = lambda method, path: method == "PUT" and name in path
    assert main(corpus.arguments(output)) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"biloom: {output}/prepare/")
    assert name in err
    assert ": the store reported an error (" in err
    assert err.endswith("; check that it is reachable and run the same command to resume\n")
    assert err.count("\n") == 1
    assert not [one for one in names_in(output) if name in one], "half of it was published"
    assert "prepare/manifest.json" not in names_in(output)
    store.works()
    assert main(corpus.arguments(output)) == 0
    assert_whole(output, corpus)


def test_text_that_cannot_be_fetched_ends_with_a_message(
    corpus: Corpus, store: Store, capsys: Capture
) -> None:
    output = f"{BUCKET}/unfetched"
    store.fails = lambda method, path: method == "GET" and path.endswith("b.txt")
    assert main(corpus.arguments(output)) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"biloom: {BUCKET}/raw/b.txt: the store reported an error (")
    store.works()
    assert main(corpus.arguments(output)) == 0
    assert_whole(output, corpus)


def test_a_store_that_goes_away_ends_the_job_with_a_message(
    corpus: Corpus, store: Store, capsys: Capture
) -> None:
    output = f"{BUCKET}/gone"
    store.fails = lambda method, path: len(store.asked) > 60
    assert main(corpus.arguments(output)) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"biloom: {BUCKET}/")
    assert err.count("\n") == 1
    store.works()
    # The next process would find it stale: this one is still there.
    storage.remove(f"{output}/prepare/_work/lock.json")
    assert main(corpus.arguments(output)) == 0
    assert_whole(output, corpus)


def test_a_slow_store_only_costs_time(corpus: Corpus, store: Store) -> None:
    store.delay = 0.01
    assert main(corpus.arguments(f"{BUCKET}/slow", "runner.stall_seconds=5")) == 0
    store.works()
    assert_whole(f"{BUCKET}/slow", corpus)


def test_a_missing_bucket_is_named_and_not_created(
    corpus: Corpus, store: Store, capsys: Capture
) -> None:
    assert main(corpus.arguments("s3://prepraed/x")) == 2
    assert capsys.readouterr().err == (
        "biloom: s3://prepraed/x/prepare/_work/lock.json: the bucket does not exist; create it or "
        "use another one\n"
    )
    assert not [path for method, path in store.asked if (method, path) == ("PUT", "/prepraed")]
