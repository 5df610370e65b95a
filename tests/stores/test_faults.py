"""Requests that are slow, refused or cut: they are repeated, and the results are those of a disk."""

from typing import Any

import pytest

from preprocess.files import storage
from preprocess.files.errors import StoreError
from preprocess.files.exclusive import create_exclusive, update_exclusive
from tests.stored_run import StoredRun

pytestmark = pytest.mark.slow

Proxy, Command = Any, Any  # of conftest.py
FAULTS = ("delay", "500 InternalError", "503 SlowDown", "cut request", "cut answer", "half answer")
SEED = 11


def test_a_run_through_faults_gives_the_results_of_a_disk(
    job: StoredRun, proxy: Proxy, far: str, biloom: Command
) -> None:
    proxy.draw(SEED, 0.05, *FAULTS)
    answer = biloom.run("run", *job.arguments(f"{far}/faults"))
    assert (answer.returncode, answer.stderr) == (0, "")
    assert all(proxy.counted[fault] for fault in FAULTS), proxy.counted
    proxy.pass_on()
    assert job.contents(f"{far}/faults") == job.contents(str(job.root / "disk"))
    assert storage.list_names(f"{far}/faults/prepare/_work") == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_creator_whose_first_request_fails_knows_that_it_succeeded(
    fault: str, proxy: Proxy, far: str
) -> None:
    path = f"{far}/created-{fault.replace(' ', '-')}"
    failed: list[str] = []

    def first_put(number: int, method: str, path: str) -> str:
        if method != "PUT" or failed:
            return ""
        failed.append(path)
        return fault

    proxy.fault = first_put
    assert create_exclusive(path, b"mine")
    assert storage.read_bytes(path) == b"mine"
    assert not create_exclusive(path, b"other")
    failed.clear()
    assert update_exclusive(path, lambda old: b"renewed")
    assert storage.read_bytes(path) == b"renewed"
    assert failed


def test_a_large_file_is_uploaded_in_parts_that_are_repeated(proxy: Proxy, far: str) -> None:
    size = 110 << 20
    faults = ["500 InternalError", "cut request", "cut answer"]
    tried = set()

    def first_try_of_a_part(number: int, method: str, path: str) -> str:
        if "partNumber=" not in path or path in tried:
            return ""
        tried.add(path)
        return faults[len(tried) % len(faults)]

    proxy.fault = first_try_of_a_part
    with storage.atomic_writer(f"{far}/large") as file:
        for number in range(size >> 20):
            file.write(bytes([number]) * (1 << 20))
    assert all(proxy.counted[fault] for fault in faults), proxy.counted
    proxy.pass_on()
    assert storage.read_bytes(f"{far}/large", size - 3) == bytes([109]) * 3
    assert storage.open_remote(f"{far}/large")[0].info(f"{far}/large")["size"] == size


def test_a_large_file_whose_upload_does_not_end_is_not_there(
    proxy: Proxy, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    s3fs.S3FileSystem.clear_instance_cache()
    path = f"{far}/never"
    proxy.fault = lambda number, method, path: (
        "503 ServiceUnavailable" if "partNumber=2" in path else ""
    )
    with (
        pytest.raises(StoreError, match="the store reported an error"),
        storage.atomic_writer(path) as file,
    ):
        file.write(bytes(110 << 20))
    s3fs.S3FileSystem.clear_instance_cache()
    proxy.pass_on()
    assert not storage.exists(path)
    fs, inner = storage.open_remote(path)
    assert fs.list_multipart_uploads(inner.partition("/")[0]) == []
