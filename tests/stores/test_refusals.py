"""Stores that refuse: wrong keys, no bucket, no room. A message tells it, and nothing is half written."""

import os
from typing import Any

import pytest

from preprocess.files import storage
from tests.stored_run import StoredRun

pytestmark = pytest.mark.slow

Proxy, Command = Any, Any  # of conftest.py


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_keys_are_told_and_not_printed(
    name: str, job: StoredRun, far: str, biloom: Command
) -> None:
    environment = {**os.environ, name: "wrong-key-of-the-test"}
    answer = biloom.run("tokenizer", *job.arguments(f"{far}/keys"), env=environment)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"biloom: {far}/keys/tokenizer")
    assert answer.stderr.endswith("; check the credentials and their rights\n")
    assert answer.stderr.count("\n") == 1
    assert "wrong-key-of-the-test" not in answer.stdout + answer.stderr


def test_a_refusal_in_the_middle_of_a_job_is_told(
    job: StoredRun, proxy: Proxy, far: str, biloom: Command
) -> None:
    output = f"{far}/refused"
    assert biloom.run("tokenizer", *job.arguments(output)).returncode == 0
    proxy.fault = lambda number, method, path: (
        "403 AccessDenied" if method == "PUT" and "/units/" in path else ""
    )
    for mode in ("in_memory", "multi_processing"):
        runner = (f"runner.options.mode={mode}", "runner.options.workers=2")
        answer = biloom.run("prepare", *job.arguments(output, *runner))
        assert answer.returncode == 2, answer.stderr
        told = answer.stderr.removeprefix("biloom: ").splitlines()
        assert len(told) <= 2, "one for each worker"
        for line in told:
            assert line.startswith(f"{output}/prepare/_work/")
            assert line.endswith("; check the credentials and their rights")
    proxy.pass_on()
    assert biloom.run("prepare", *job.arguments(output)).returncode == 0
    assert job.equals_disk(output, "prepare")


def test_a_bucket_that_does_not_exist_is_named(
    job: StoredRun, start_seaweedfs: Any, tmp_path_factory: Any, bucket_at: Any, biloom: Command
) -> None:
    # By default, this store creates a bucket at the first upload.
    server = start_seaweedfs(tmp_path_factory.mktemp("strict"), "-s3.autoCreateBucket=false")
    with bucket_at(server.address):
        answer = biloom.run("tokenizer", *job.arguments("s3://no-such-bucket/run"))
    assert answer.returncode == 2
    assert answer.stderr == (
        "biloom: s3://no-such-bucket/run/tokenizer/_work/lock.json: the bucket does not exist; create "
        "it or use another one\n"
    )
    server.kill()


@pytest.mark.parametrize(
    ("fault", "stage", "part"),
    [
        ("507 XMinioStorageFull", "prepare", "/units/"),
        ("403 QuotaExceeded", "prepare", "prepare/train-"),
        ("507 InsufficientStorage", "train", "/step-"),
    ],
)
def test_a_full_store_is_told_and_the_same_command_resumes(
    fault: str, stage: str, part: str, job: StoredRun, proxy: Proxy, far: str, biloom: Command
) -> None:
    output = f"{far}/full-{fault[4:]}"
    for former in ("tokenizer", "prepare")[: 1 if stage == "prepare" else 2]:
        assert biloom.run(former, *job.arguments(output)).returncode == 0
    proxy.fault = lambda number, method, path: fault if method == "PUT" and part in path else ""
    answer = biloom.run(stage, *job.arguments(output))
    assert answer.returncode == 3, answer.stderr
    assert answer.stderr.startswith(f"biloom: {output}/{stage}/")
    assert f": the store is full ({fault[4:]}: " in answer.stderr
    assert answer.stderr.endswith(
        "; free some space or raise its quota, and run the same command to resume\n"
    )
    assert answer.stderr.count("\n") == 1
    proxy.pass_on()
    assert not storage.exists(f"{output}/{stage}/manifest.json")
    assert biloom.run(stage, *job.arguments(output)).returncode == 0
    assert job.equals_disk(output, stage)
