"""The version that is shown and that manifests record."""

import importlib.metadata

import pytest

from pipeline.version import biloom_version


def test_it_is_that_of_the_installed_package() -> None:
    assert biloom_version() == importlib.metadata.version("biloom")


def test_source_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert biloom_version() == "uninstalled"
