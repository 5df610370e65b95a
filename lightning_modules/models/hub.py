"""Model folders in repositories of the Hugging Face hub.

Files go through the local cache of huggingface_hub, so that a model is downloaded once and can then be
loaded without a network. Address and token are huggingface_hub's own settings (HF_ENDPOINT, HF_TOKEN).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from preprocess.errors import UserError, one_line
from preprocess.files import storage
from preprocess.files.manifest import NAME, ManifestError, read_manifest

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""Name of a repository: its owner and its own name."""

BUSY = {429, 500, 502, 503, 504}
"""HTTP status of a hub that may answer later. A model in the cache is loaded meanwhile."""


class HubError(ManifestError):
    """A repository that cannot be read or written, or that holds no model."""


class HubModel:
    """A model that was loaded from a folder and can be uploaded.

    Attributes:
        folder: path or URL of the folder; empty if the model was not loaded from one.
    """

    folder: str = ""

    def push_to_hub(
        self, repository: str, *, revision: str | None = None, private: bool | None = None
    ) -> str:
        """Upload the model folder to a repository of the Hugging Face hub, in one commit.

        The repository is made if it does not exist. Only the files of the manifest are uploaded.

        Args:
            repository: owner and name, such as "org/name".
            revision: branch; None means the default branch.
            private: whether a new repository is private; None means the owner's default.

        Returns:
            The address of the commit.

        Raises:
            HubError: the hub refuses or cannot be reached.
            UserError: the model was not loaded from a folder, or its weights have been changed.
        """
        if not self.folder:
            raise UserError(
                "this model was not loaded from a folder; write one with `biloom export`, load it, and "
                "push that"
            )
        self._check_unchanged()
        return upload(self.folder, repository, revision, private)

    def _check_unchanged(self) -> None:
        """Raise UserError if the weights are no longer those of the folder."""
        import torch

        from lightning_modules.models.model_folder import load_network

        now = self.network.state_dict()  # type: ignore[attr-defined]
        then = load_network(self.folder).network.state_dict()
        same = now.keys() == then.keys() and all(
            torch.equal(tensor.cpu().to(then[name].dtype), then[name])
            for name, tensor in now.items()
        )
        if not same:
            raise UserError(
                f"the weights have changed since the model was loaded from {self.folder}; export the "
                "trained model with `biloom export`, load it, and push that"
            )


def local_folder(path: str, revision: str | None = None) -> str:
    """Return the folder of a model: ``path``, or the local copy of a repository of that name.

    An existing folder goes before a repository, and so do a name in an existing folder and the name
    "export", which `biloom export` writes. The copy has the files of one commit.

    Args:
        path: path or URL of a folder, or the owner and the name of a repository, such as "org/name".
        revision: branch, tag or commit of the repository; None means its default branch.

    Raises:
        HubError: there is neither a folder nor a repository, or the repository holds no model.
    """
    owner, _, name = path.rpartition("/")
    is_path = storage.is_remote(path) or storage.exists(path) or not REPOSITORY.fullmatch(path)
    # A path that was mistyped must not be looked up on the network.
    if is_path or name == "export" or storage.exists(owner):
        if revision is None:
            return path
        raise HubError(
            f"revision: {path} is a path or URL, which has no revisions; name a repository of the "
            "Hugging Face hub such as org/name, or leave revision out"
        )
    hub = _hub(
        f"{path}: no such folder; run `biloom export` first, or check the path. To load the repository of "
        "this name"
    )
    with _reported(hub, path, revision):
        # A download asks five times, for half a minute, before it uses the cache.
        fetch = partial(
            hub.hf_hub_download, path, local_files_only=not _answers(hub, path, revision)
        )
        folder = Path(fetch(NAME, revision=revision)).parent
        for file in read_manifest(str(folder), "export").all_files:
            # By commit, because a branch may move meanwhile.
            fetch(file.name, revision=folder.name)
    return str(folder)


def _answers(hub: ModuleType, repository: str, revision: str | None) -> bool:
    """Return False if the hub cannot be reached or is out of order; raise its error if it refuses."""
    try:
        hub.HfApi().model_info(repository, revision=revision)
    except hub.errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in BUSY:
            return False
        raise
    except _network_errors(hub):
        return False
    return True


def _network_errors(hub: ModuleType) -> tuple[type[Exception], ...]:
    """Return what a request without an answer raises, in the HTTP client that this version uses."""
    return (*hub.errors.HfHubHTTPError.__bases__, OSError)


def upload(folder: str, repository: str, revision: str | None, private: bool | None) -> str:
    """Upload a model folder; see `HubModel.push_to_hub`."""
    hub = _hub("to upload a model")
    names = [file.name for file in read_manifest(folder, "export").all_files] + [NAME]
    with TemporaryDirectory(prefix="biloom-") as copies:
        local = folder
        if storage.is_remote(folder):
            local = copies
            for name in names:
                storage.write_bytes(
                    f"{copies}/{name}", storage.read_bytes(storage.join(folder, name))
                )
        with _reported(hub, repository, revision):
            api = hub.HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                folder_path=local,
                revision=revision,
                # Names, not patterns.
                allow_patterns=[re.sub(r"([\[*?])", r"[\1]", name) for name in names],
                commit_message="Upload a model of biloom",
            )
    return str(commit.commit_url)


def _hub(what: str) -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise HubError(f"{what} from the Hugging Face hub, pip install 'biloom[hf]'") from error
    return huggingface_hub


@contextmanager
def _reported(hub: ModuleType, repository: str, revision: str | None) -> Iterator[None]:
    """Convert the errors of huggingface_hub and of its HTTP client to HubError."""
    errors = hub.errors
    at = f" at the revision {revision}" if revision else ""
    try:
        yield
    except errors.HFValidationError as error:
        raise HubError(
            f"{one_line(repository)}: not the name of a repository of the Hugging Face hub; write "
            "owner/name"
        ) from error
    except errors.GatedRepoError as error:
        raise HubError(
            f"{repository}: this repository of the Hugging Face hub asks for an agreement; accept it on "
            "its page, and log in with `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"{repository}: neither a folder nor a repository of the Hugging Face hub that you can "
            "read; run `biloom export` first, check the name, or log in with `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(
            f"{repository}: this repository of the Hugging Face hub has no revision {revision}; name a "
            "branch, a tag or a commit"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise HubError(
            f"{repository}: no such folder, and the Hugging Face hub cannot be reached to look for the "
            "repository of this name; check the path or the network (HF_ENDPOINT, HF_HUB_OFFLINE), or try "
            "again later"
        ) from error
    except errors.EntryNotFoundError as error:
        raise HubError(
            f"{repository}: this repository of the Hugging Face hub{at} has no {NAME}, or not all of its "
            "files, so it holds no model of biloom; upload one with BiLM.push_to_hub"
        ) from error
    except UserError:
        raise
    except _network_errors(hub) as error:
        reason = one_line(str(error).strip().partition("\n")[0]) or type(error).__name__
        raise HubError(
            f"{repository}: the Hugging Face hub failed ({reason}); check the network and the login "
            "(`hf auth login`), and try again"
        ) from error
