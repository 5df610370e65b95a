"""Contents of the files that filters and decontamination read, for fingerprints."""

from typing import Any

from preprocess.config import PrepareConfig
from preprocess.quality.benchmarks import content_of_benchmarks
from preprocess.quality.list_files import content_of_files
from preprocess.quality.rule_sets import BAD_WORDS
from preprocess.quality.url_lists import content_of_lists
from preprocess.text.config import FilterConfig

PATHS = {"urls": ("folders", "domains", "urls", "words"), "c4": ("bad_words",)}
"""Settings of sections of the filters that are paths. Their contents are in a request in their place."""


def contents_of_filters(config: FilterConfig) -> dict[str, str]:
    """Return a hash of the contents of each list that a filter reads, by setting; empty without lists.

    Raises:
        UserError: a file is missing, empty, damaged or not text.
    """
    contents = {}
    if config.urls:
        contents["urls.content"] = content_of_lists(config.urls)
    if config.c4 and config.c4.bad_words:
        path = config.c4.bad_words
        contents["c4.bad_words"] = content_of_files([("words", path)], BAD_WORDS)
    return contents


def contents_of_prepare(config: PrepareConfig) -> dict[str, str]:
    """Return a hash of the contents of the files that screening reads, by dotted key.

    Lists of a source's own filters are left out. Without files, the result is empty.

    Raises:
        UserError: a file is missing, empty or damaged, or is a list that is not text.
    """
    found = contents_of_filters(config.filters)
    contents = {f"prepare.filters.{name}": value for name, value in found.items()}
    if config.decontamination.benchmarks:
        contents["prepare.decontamination.content"] = content_of_benchmarks(config.decontamination)
    return contents


def filters_without_paths(config: FilterConfig) -> dict[str, Any]:
    """Return the filters that differ from the defaults, for manifests and pages."""
    shown: dict[str, Any] = config.model_dump(exclude_defaults=True)
    for section, names in PATHS.items():
        for name in names:
            shown.get(section, {}).pop(name, None)
    return shown


def filters_as_asked(config: FilterConfig) -> dict[str, Any]:
    """Return the filters of a source for a request, with the contents of lists in place of their paths.

    Raises:
        UserError: as in `contents_of_filters`.
    """
    asked: dict[str, Any] = config.model_dump()
    for section, names in PATHS.items():
        for name in names if asked[section] else ():
            del asked[section][name]
    for name, content in contents_of_filters(config).items():
        section, _, key = name.partition(".")
        asked[section][key] = content
    return asked
