"""The storage on a real object-store protocol: S3 as moto's server speaks it."""

from collections.abc import Iterator

import pytest

from preprocess.files import storage
from preprocess.files.find import find_files

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    import s3fs

    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = pytest.MonkeyPatch()
    environment.setenv("FSSPEC_S3_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        environment.setenv(name, "test")
    environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import fsspec.config

    fsspec.config.set_conf_env(fsspec.config.conf)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("corpora")
    yield "s3://corpora"
    fsspec.config.conf.pop("s3", None)
    s3fs.S3FileSystem.clear_instance_cache()
    environment.undo()
    server.stop()


def test_what_is_written_is_read_back_whole_and_in_ranges(bucket: str) -> None:
    path = f"{bucket}/a/b.bin"
    storage.write_bytes(path, b"0123456789")
    assert storage.read_bytes(path) == b"0123456789"
    assert storage.read_bytes(path, 2, 5) == b"234"
    assert storage.list_names(f"{bucket}/a") == ["b.bin"]


def test_a_writer_that_raises_publishes_nothing(bucket: str) -> None:
    path = f"{bucket}/raising/part.bin"
    with pytest.raises(RuntimeError), storage.atomic_writer(path) as file:  # noqa: PT012
        file.write(b"half")
        raise RuntimeError
    assert not storage.exists(path)


def test_a_glob_finds_files_with_names_below_its_fixed_part(bucket: str) -> None:
    for name in ("x/1.txt", "x/y/2.txt", "x/3.bin"):
        storage.write_bytes(f"{bucket}/glob/{name}", b"text")
    found = find_files(f"{bucket}/glob/**/*.txt")
    assert [(file.name, file.path) for file in found] == [
        ("x/1.txt", f"{bucket}/glob/x/1.txt"),
        ("x/y/2.txt", f"{bucket}/glob/x/y/2.txt"),
    ]


def test_wildcards_match_as_on_a_local_disk(bucket: str) -> None:
    import s3fs

    folder = f"{bucket}/shell"
    for name in ("[D] x/a.txt", "D x/b.txt", ".c.txt", ".d/e.txt", "f/.g/h.txt", "f/i#?%::.txt"):
        storage.write_bytes(f"{folder}/{name}", name.encode())
    # Objects of no bytes that stand for folders, as web consoles make them.
    client = s3fs.S3FileSystem()
    for name in ("shell/", "shell/f/", "shell/marker.txt/"):
        client.call_s3("put_object", Bucket="corpora", Key=name, Body=b"")
    for pattern, names in {
        "[D] x/*.txt": ["a.txt"],
        "[D]?x/*.txt": ["D x/b.txt"],
        "*/*.txt": ["D x/b.txt", "[D] x/a.txt", "f/i#?%::.txt"],
        "**": ["D x/b.txt", "[D] x/a.txt", "f/i#?%::.txt"],
        "f/*": ["i#?%::.txt"],
        "f/i#?%::.txt": ["i#?%::.txt"],
        ".*": [".c.txt"],
        "**/.g/*": ["f/.g/h.txt"],
    }.items():
        found = find_files(f"{folder}/{pattern}")
        assert [file.name for file in found] == names
        for file in found:
            assert storage.read_bytes(file.path).decode().endswith(file.name)
            assert storage.read_bytes(file.path, 1, 2) == storage.open_read(file.path).read()[1:2]


def test_a_change_at_equal_size_has_another_version(bucket: str) -> None:
    versions = set()
    for data in (b"one", b"two"):
        storage.write_bytes(f"{bucket}/version/a.txt", data)
        versions.add(find_files(f"{bucket}/version/*.txt")[0].version)
        versions.add(find_files(f"{bucket}/version/a.txt")[0].version)
    assert len(versions) == 2


def test_a_folder_moves_aside_and_is_removed(bucket: str) -> None:
    for name in ("manifest.json", "data.bin", "_work/unit.json"):
        storage.write_bytes(f"{bucket}/stage/{name}", name.encode())
    assert storage.move_aside(f"{bucket}/stage") == f"{bucket}/stage.old-1"
    assert not storage.exists(f"{bucket}/stage/manifest.json")
    assert storage.read_bytes(f"{bucket}/stage.old-1/_work/unit.json") == b"_work/unit.json"
    storage.remove_tree(f"{bucket}/stage.old-1")
    assert not storage.exists(f"{bucket}/stage.old-1")


def test_a_copy_is_the_same_bytes(bucket: str) -> None:
    storage.write_bytes(f"{bucket}/copy/a.bin", b"bytes")
    storage.copy(f"{bucket}/copy/a.bin", f"{bucket}/copy/b.bin")
    assert storage.read_bytes(f"{bucket}/copy/b.bin") == b"bytes"
