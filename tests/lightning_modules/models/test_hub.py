"""Models in repositories of the Hugging Face hub, against a local server that speaks its API."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from biloom import BiLM
from lightning_modules.models import hub as our_hub
from lightning_modules.models.hub import HubError, local_folder
from preprocess.errors import UserError
from preprocess.text.config import CleaningConfig

ROOT = Path(__file__).parents[3]


class Hub:
    """Repositories: name -> commits, each file name -> bytes; and the requests that were answered."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches: dict[tuple[str, str], str] = {}
        self.requests: list[str] = []
        self.status = 0

    def commit(self, name: str, files: dict[str, bytes], branch: str = "main") -> str:
        commits = self.repositories.setdefault(name, {})
        commit = hashlib.sha1(f"{name}{branch}{len(commits)}".encode()).hexdigest()
        commits[commit] = files
        self.branches[name, branch] = commit
        return commit

    def answer(self, handler: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        path = handler.path.partition("?")[0]
        self.requests.append(f"{handler.command} {path}")
        own = f"http://{handler.headers['Host']}"
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if self.status:
            return self.status, {}, b"{}"
        if match := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([\w.-]+)/(.+)", path):
            return self._file(*match.groups())
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.repositories.setdefault(name, {})
            return 200, {}, json.dumps({"url": f"{own}/{name}", "id": name}).encode()
        if path == "/api/validate-yaml":
            return 200, {}, b'{"errors": [], "warnings": []}'
        if match := re.fullmatch(r"/api/models/(.+)/preupload/.+", path):
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return 200, {}, json.dumps({"files": files}).encode()
        if match := re.fullmatch(r"/api/models/(.+)/commit/(.+)", path):
            lines = [json.loads(line)["value"] for line in body.splitlines() if b'"file"' in line]
            added = {one["path"]: base64.b64decode(one["content"]) for one in lines}
            oid = self.commit(match[1], added, match[2])
            url = f"{own}/{match[1]}/commit/{oid}"
            return (
                200,
                {},
                json.dumps({"commitUrl": url, "commitOid": oid, "success": True}).encode(),
            )
        if match := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/(.+))?", path):
            name, revision = match[1], match[2] or "main"
            status, headers, _ = self._file(name, revision, "")
            if headers["X-Error-Code"] == "EntryNotFound":
                info = {"id": name, "sha": headers["X-Repo-Commit"], "siblings": []}
                return 200, {}, json.dumps(info).encode()
            return status, headers, b"{}"
        return 404, {}, b"{}"

    def _file(self, name: str, revision: str, file: str) -> tuple[int, dict[str, str], bytes]:
        if name not in self.repositories:
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        commit = self.branches.get((name, revision), revision)
        if commit not in self.repositories[name]:
            return 404, {"X-Error-Code": "RevisionNotFound", "X-Repo-Commit": commit}, b""
        data = self.repositories[name][commit].get(file)
        if data is None:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        etag = f'"{hashlib.sha1(data).hexdigest()}"'
        return 200, {"ETag": etag, "X-Repo-Commit": commit}, data


class Server(ThreadingHTTPServer):
    hub: Hub


class Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self) -> None:
        status, headers, data = self.server.hub.answer(self)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_HEAD = do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Hub]]:
    constants = pytest.importorskip("huggingface_hub.constants")
    server = Server(("127.0.0.1", 0), Handler)
    server.hub = Hub()
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.chdir(tmp_path)
    yield url, server.hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(address: tuple[str, Hub]) -> Hub:
    return address[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_a_model_is_pushed_and_loaded_again(hub: Hub, trained: Path) -> None:
    model = BiLM.from_pretrained(trained / "export")
    url = model.push_to_hub("org/name")

    [[commit, files]] = hub.repositories["org/name"].items()
    assert url.endswith(f"/org/name/commit/{commit}")
    listed = {
        f["name"] for key in ("files", "beside") for f in json.loads(files["manifest.json"])[key]
    }
    assert files.keys() == {*listed, "manifest.json"}
    assert all(contents(trained / "export")[name] == data for name, data in files.items())

    loaded = BiLM.from_pretrained("org/name")
    assert loaded.content == model.content
    [ours], [theirs] = loaded.embed(["kana lori"]), model.embed(["kana lori"])
    assert (ours.vectors == theirs.vectors).all()
    # From the local cache, with only a question whether there is a newer commit.
    hub.requests.clear()
    BiLM.from_pretrained("org/name")
    head = "HEAD /org/name/resolve/main/manifest.json"
    assert hub.requests == ["GET /api/models/org/name", head]


def test_the_cache_serves_without_a_network(hub: Hub, trained: Path, monkeypatch: Any) -> None:
    hub.commit("org/name", contents(trained / "export"))
    BiLM.from_pretrained("org/name")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert BiLM.from_pretrained("org/name").dim
    assert hub.requests == []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for hub.status in (429, 503):
        assert BiLM.from_pretrained("org/name").dim
    with pytest.raises(
        HubError, match="org/other: no such folder, and the Hugging Face hub cannot be"
    ):
        BiLM.from_pretrained("org/other")


def test_a_revision_is_a_branch_or_a_commit(hub: Hub, trained: Path) -> None:
    files = contents(trained / "export")
    first = hub.commit("org/name", files)
    hub.commit("org/name", {"manifest.json": b"{}"})
    hub.commit("org/name", files, "v2")
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        BiLM.from_pretrained("org/name")
    assert BiLM.from_pretrained("org/name", revision=first).dim
    assert BiLM.from_pretrained("org/name", revision="v2").dim
    with pytest.raises(HubError, match="has no revision v3; name a branch, a tag or a commit"):
        BiLM.from_pretrained("org/name", revision="v3")


def test_a_folder_goes_before_a_repository(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "org/name").mkdir(parents=True)
    local = ("org/name", "org/other", "new/export", "a/b/c", "model", "/org/name", "../org")
    for path in (*local, "s3://org/name"):
        assert local_folder(path) == path
    assert hub.requests == []
    with pytest.raises(HubError) as raised:
        local_folder("org/name", "main")
    assert str(raised.value) == (
        "revision: org/name is a path or URL, which has no revisions; name a repository of the "
        "Hugging Face hub such as org/name, or leave revision out"
    )


def test_what_is_no_model_is_told(hub: Hub, trained: Path) -> None:
    with pytest.raises(HubError) as absent:
        BiLM.from_pretrained("org/absent")
    assert str(absent.value) == (
        "org/absent: neither a folder nor a repository of the Hugging Face hub that you can read; run "
        "`biloom export` first, check the name, or log in with `hf auth login`"
    )
    files = contents(trained / "export")
    hub.commit("org/plain", {"README.md": b"", "model.safetensors": b""})
    hub.commit("org/partial", {k: v for k, v in files.items() if k != "model.safetensors"})
    for name in ("org/plain", "org/partial"):
        with pytest.raises(
            HubError, match=f"{name}: this repository .* has no manifest.json, or not all"
        ):
            BiLM.from_pretrained(name)
    hub.commit("org/damaged", {**files, "model.safetensors": b"other"})
    with pytest.raises(UserError, match=r"model\.safetensors"):
        BiLM.from_pretrained("org/damaged")


def test_a_hub_that_refuses_is_told(hub: Hub, trained: Path) -> None:
    model = BiLM.from_pretrained(trained / "export")
    hub.status = 403
    with pytest.raises(
        HubError, match=r"org/name: the Hugging Face hub failed \(.*403.*check the network"
    ):
        model.push_to_hub("org/name")
    hub.status = 0
    with pytest.raises(HubError, match="a/b/c: not the name of a repository"):
        model.push_to_hub("a/b/c")


def test_only_the_weights_of_the_folder_are_pushed(hub: Hub, trained: Path) -> None:
    model = BiLM.from_pretrained(trained / "export")
    with torch.no_grad():
        next(model.network.parameters()).add_(1)
    with pytest.raises(UserError, match="the weights have changed since the model was loaded from"):
        model.push_to_hub("org/name")
    made = BiLM(model.network, model.tokenizer, CleaningConfig(), "eos")
    with pytest.raises(UserError, match="this model was not loaded from a folder"):
        made.push_to_hub("org/name")
    assert hub.requests == []


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HubError) as raised:
        BiLM.from_pretrained("org/name")
    assert str(raised.value) == (
        "org/name: no such folder; run `biloom export` first, or check the path. To load the repository "
        "of this name from the Hugging Face hub, pip install 'biloom[hf]'"
    )
    with pytest.raises(HubError, match=r"to upload a model .*pip install 'biloom\[hf\]'"):
        our_hub.upload("folder", "org/name", None, None)


@pytest.mark.slow
def test_the_example_runs(address: tuple[str, Hub], trained: Path, tmp_path: Path) -> None:
    url, hub = address
    done = subprocess.run(
        [sys.executable, ROOT / "examples/hub.py", trained / "export", "org/name"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_ENDPOINT": url},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "org/name" in hub.repositories
    assert "the same vectors: True" in done.stdout
