"""What commands with KEY=VALUE settings share. Imports nothing that is slow to load."""

from collections.abc import Collection, Sequence

SETTING = {"metavar": "KEY=VALUE", "nargs": "*", "help": "a setting"}
PRINT_CONFIG = {
    "action": "store_true",
    "help": "print the settings with every one explained, and exit",
}


def print_settings(section: type, settings: Sequence[str]) -> int:
    """Print all settings of a section with their explanations, and return exit code 0.

    Args:
        section: class of the settings.
        settings: KEY=VALUE words, which replace defaults.

    Raises:
        ConfigError: a setting is unknown or has a wrong value.
    """
    from pipeline.config.load import dump_section
    from pipeline.config.sections import load_section

    print(dump_section(load_section(section, settings)), end="")
    return 0


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
