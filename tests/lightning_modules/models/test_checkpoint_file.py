"""A checkpoint's bytes follow from its contents, and damage never goes unnoticed."""

import io
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.models.checkpoint_file import MARK, CheckpointError, read_checkpoint
from lightning_modules.models.checkpoint_writer import write_checkpoint
from preprocess.files import storage


def contents() -> dict[str, Any]:
    draw = torch.Generator().manual_seed(3)
    weights = torch.rand(4, 3, generator=draw)
    return {
        "format": 2,
        "step": 7,
        "state_dict": {"network.a": weights, "network.tied": weights, "network.b": torch.arange(5)},
        "optimizer": {
            "state": {0: {"step": torch.tensor(7.0), "mean": torch.rand(4, 3, generator=draw)}},
            "param_groups": [{"lr": 0.5, "betas": (0.9, 0.999), "params": [0, 1]}],
        },
        "looks": [1.5, 2.5],
        "average": None,
        "empty": torch.zeros(0),
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "step-000000007.ckpt"
    write_checkpoint(str(made), contents())
    return made


@pytest.fixture(params=[False, True], ids=["copied", "mapped"])
def read(request: pytest.FixtureRequest) -> Any:
    """`read_checkpoint`, which copies the tensors or maps them."""
    return lambda path: read_checkpoint(str(path), request.param)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return bool(one == other)


def test_what_was_written_is_read(file: Path, read: Any) -> None:
    assert equal(read(file), contents())
    weights = read(file)["state_dict"]
    assert weights["network.a"].data_ptr() == weights["network.tied"].data_ptr(), "stored once"


def test_mapped_tensors_outlive_their_file_and_do_not_change_it(file: Path) -> None:
    data = file.read_bytes()
    mapped = read_checkpoint(str(file), mapped=True)["state_dict"]
    maps = Path("/proc/self/maps").read_text()
    assert str(file) in maps
    mapped["network.a"] += 1
    assert file.read_bytes() == data, "copy-on-write"
    file.unlink()
    assert torch.equal(mapped["network.b"], torch.arange(5))
    del mapped
    assert str(file) not in Path("/proc/self/maps").read_text()


def test_a_checkpoint_at_a_url_is_mapped_from_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    write_checkpoint("memory://mapped/step-000000007.ckpt", contents())
    read = read_checkpoint("memory://mapped/step-000000007.ckpt", mapped=True)
    assert equal(read, contents())
    assert not list(tmp_path.iterdir())


def test_other_readers_of_torch_files_read_it(file: Path) -> None:
    assert torch.load(file, weights_only=True)["step"] == 7
    assert zipfile.ZipFile(file).testzip() is None


def packed(checkpoint: dict[str, Any]) -> bytes:
    write_checkpoint("memory://packed.ckpt", checkpoint)
    return storage.read_bytes("memory://packed.ckpt")


def test_equal_contents_give_equal_bytes(file: Path) -> None:
    """Whatever was loaded, is shared or comes in another order."""
    data = file.read_bytes()
    assert packed(read_checkpoint(str(file))) == data
    other = contents()
    big = torch.zeros(2, 100)
    big[1, 7:12] = torch.arange(5)
    other["state_dict"]["network.b"] = big[1, 7:12].to(torch.int64)
    turned = other["state_dict"]["network.a"].t().contiguous().t()
    other["state_dict"] |= {"network.a": turned, "network.tied": turned}
    other["".join(["lo", "oks"])] = other.pop("looks")
    assert packed(other) == data
    other["looks"][0] = 1.25
    assert packed(other) != data


def test_a_file_without_a_checksum_is_read(tmp_path: Path, read: Any) -> None:
    """Version 0.1 wrote such files."""
    torch.save(contents(), tmp_path / "old.ckpt")
    assert equal(read(tmp_path / "old.ckpt"), contents())


def test_a_flipped_bit_is_noticed_or_without_effect(file: Path, read: Any) -> None:
    data, draw = file.read_bytes(), random.Random(5)
    places = {*range(len(data) - 200, len(data)), *draw.sample(range(len(data)), 300)}
    messages = []
    for place in sorted(places):
        flipped = bytearray(data)
        flipped[place] ^= 1 << draw.randrange(8)
        file.write_bytes(flipped)
        try:
            found = read(file)
        except CheckpointError as error:
            messages.append(str(error))
        else:
            pytest.fail(f"bit of byte {place}: {equal(found, contents())}")
    assert all(one.startswith(f"{file} is damaged (") and "\n" not in one for one in messages)


@pytest.mark.parametrize("length", [0, 1, 300, -1, -46, -47, -60])
def test_a_file_that_is_cut_off_is_damaged(file: Path, read: Any, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="is damaged"):
        read(file)


class _Runs:
    def __reduce__(self) -> Any:
        return (Path.write_text, (Path("run-by-a-checkpoint"), "x"))


STRANGE: dict[str, Any] = {
    "code": {"a": _Runs()},
    "a list": [1, 2],
    "a repeated row": {"a": torch.zeros(1).expand(10**12)},
    "a sparse tensor": {
        "a": torch.sparse_coo_tensor([[1], [1]], [1.0], (10**6, 10**6), check_invariants=True)
    },
    "a tensor without data": {"a": torch.empty(10**12, device="meta")},
    "a set": {"a": {1, 2}},
}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_a_strangers_file_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(STRANGE[kind], tmp_path / "strange.ckpt")
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(str(tmp_path / "strange.ckpt"))
    assert not (tmp_path / "run-by-a-checkpoint").exists()


def test_a_file_that_unpacks_to_much_more_is_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}, protocol=2))
        archive.writestr("archive/data/0", b"\0" * 10**8)
    with pytest.raises(CheckpointError, match="compressed parts"):
        read_checkpoint(str(bomb))


def test_a_tensor_larger_than_its_data_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(10)}, buffer)
    large = tmp_path / "large.ckpt"
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(large, "w") as archive:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("data.pkl"):
                assert data.count(b"K\n") >= 1
                data = data.replace(b"K\n", b"J" + (10**9).to_bytes(4, "little"))
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(str(large))


def test_a_checkpoint_without_its_checksum_is_damaged(file: Path) -> None:
    data = file.read_bytes()
    assert data.count(MARK) == 1
    file.write_bytes(data.replace(MARK, b"another-mark: "))
    with pytest.raises(CheckpointError, match="its checksum is missing"):
        read_checkpoint(str(file))
