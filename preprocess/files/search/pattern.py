"""Matching of paths with the wildcards of a shell, component by component.

``*`` matches any characters, ``?`` one character, ``[abc]`` one character of a class. A component
``**`` matches any number of folders, but no hidden folder. Wildcards do not match a leading dot:
hidden names need a component that begins with a dot. The rules are the same on every file system.
"""

import re
from collections.abc import Sequence
from fnmatch import translate
from functools import lru_cache

FOLDERS = "**"
"""The component that matches any number of folders."""


def is_wild(component: str, wildcards: str = "*?[") -> bool:
    """Return True if a component of a pattern has wildcards."""
    return any(character in component for character in wildcards)


def is_hidden(name: str) -> bool:
    return name.startswith(".")


def may_be_a_name(component: str) -> bool:
    """Return True if a component with wildcards may also be the exact name of a file or folder.

    ``*`` and ``**`` are always wildcards.
    """
    return component.strip("*") != ""


def matches_name(name: str, component: str, wildcards: str = "*?[") -> bool:
    """Return True if a name equals or matches one component of a pattern."""
    if name == component:
        return True
    if is_hidden(name) and not is_hidden(component):
        return False
    return _compiled(component, wildcards).match(name) is not None


def matches_path(names: Sequence[str], pattern: Sequence[str], wildcards: str = "*?[") -> bool:
    """Return True if the path of a file matches a pattern; both are lists of components."""
    if not pattern or not names:
        return not pattern and not names
    first, *rest = pattern
    if first != FOLDERS:
        return matches_name(names[0], first, wildcards) and matches_path(names[1:], rest, wildcards)
    if not rest:
        return not any(map(is_hidden, names))
    for skipped in range(len(names)):
        if matches_path(names[skipped:], rest, wildcards):
            return True
        if is_hidden(names[skipped]):
            return False
    return False


@lru_cache(maxsize=256)
def _compiled(component: str, wildcards: str) -> re.Pattern[str]:
    # Characters that are no wildcards here, such as "?" in a web address, match themselves.
    literal = set("?[") - set(wildcards)
    return re.compile(translate("".join(f"[{c}]" if c in literal else c for c in component)))
