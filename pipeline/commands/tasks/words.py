"""The words of a command line whose file is optional and whose settings are KEY=VALUE."""

from collections.abc import Collection, Sequence


def file_and_settings(words: Sequence[str], keys: Collection[str]) -> tuple[str, list[str]]:
    """Return the file, "-" if there is none, and the settings.

    Args:
        words: the words. One is a setting if it has "=" and is not the name of an existing file, or
            begins with a key.
        keys: the names of settings.

    Raises:
        ConfigError: there are several files.
    """
    from pathlib import Path

    from pipeline.config.load import ConfigError

    def is_setting(word: str) -> bool:
        key, equals, _ = word.partition("=")
        return bool(equals) and (key.partition(".")[0] in keys or not Path(word).exists())

    settings = [word for word in words if is_setting(word)]
    files = [word for word in words if not is_setting(word)]
    if len(files) > 1:
        raise ConfigError(
            [f"{len(files)} files ({', '.join(files)}); name one, or - for standard input"]
        )
    return (files or ["-"])[0], settings
