"""The version of the installed package."""


def biloom_version() -> str:
    """Return the installed version; "uninstalled" if the source runs without an installation."""
    # Imported here because this takes longer than the rest of `biloom --help`.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("biloom")
    except PackageNotFoundError:
        return "uninstalled"
