"""The base class of errors that users can fix, and functions to show names and URLs in messages."""

import re
import unicodedata
from urllib.parse import unquote

_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")
# Characters that reorder the text after them.
_DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

HIDDEN = "***"
"""What messages show in place of a secret."""
# The user and password of a URL; a password may contain a slash. A port is not a password.
_USER = re.compile(
    r"(?P<before>(?P<protocol>[A-Za-z][A-Za-z0-9+.-]{0,30})://)"
    r"(?P<user>[^\s/@:\[]+:(?!:|\d*[/?#])[^\s@]*(?:@[^\s/@]*)*|[^\s/?#]*)@"
)
_PARAMETER = re.compile(
    r"(?<=[?&;#])(?P<name>[^\s=&;#?]+)=(?P<value>[^\s&;#'\"]*[^\s&;#'\":,.)\]}])"
)
# An address without a protocol, as in the settings of engines. The tag and the digest of a container
# image are no secrets.
_ADDRESS_USER = re.compile(r"[^\s/@:'\"{},\[]{1,200}:[^\s/@'\"]{1,200}@(?!sha256:)(?=[\w.\[-])")
# In these protocols, the part before `@` is a container, or an owner and a repository.
_NO_USERS = ("abfs", "abfss", "adl", "az", "wasb", "wasbs", "github", "hf")
# In these protocols, a user without a password is part of the address, not a secret.
_BARE_USERS = ("ftp", "git", "hdfs", "sftp", "smb", "ssh", "webhdfs")
_SECRET = re.compile(
    r"(?:.*[^a-z0-9])?(?:sig|signature|credentials?|auth|authorization|key|jwt|bearer|pwd|passphrase"
    r"|\w*(?:token|secret|password|passwd|accesskey|accesskeyid|googleaccessid|apikey))(?:[^a-z0-9].*)?"
)

# `"PASSWORD": "..."`, `PASSWORD=...` and `--password ...`, in JSON or in a command.
_ASSIGNED = re.compile(
    r"""(?P<before>(?<![\w.-])(?P<name>[\w.-]{1,200})["']?\s{0,9}[:=]\s*|(?P<option>--?[\w-]+)\s+)"""
    r"""(?P<value>"(?:[^"\\]|\\.)*"|'[^']*'|[^\s,{\["'][^\s,}"']*)"""
)


class UserError(ValueError):
    """Wrong input, a wrong setting or a damaged file.

    The message says what is wrong, where, and what to do. The command line prints it without a
    traceback and exits with status 2.
    """


class JobError(UserError):
    """A job that failed for a reason other than wrong input, such as a lost process.

    The message says what happened and how to resume. The command line prints it without a traceback
    and exits with status 3.
    """


def is_secret(name: str) -> bool:
    """Return True if a parameter, key or variable of this name holds a secret, such as ``api_key``."""
    return _SECRET.fullmatch(unquote(name[:200]).lower()) is not None


def without_secrets(text: str) -> str:
    """Replace users, passwords, tokens and signatures in the URLs of ``text`` by `HIDDEN`.

    Chained URLs are included. The text is returned unchanged if it has no such URL.
    """
    if "://" not in text:
        return text

    def user(match: re.Match[str]) -> str:
        protocol = match["protocol"].lower()
        is_bare = ":" not in match["user"] and protocol in _BARE_USERS
        shown = match["user"] if is_bare or protocol in _NO_USERS else HIDDEN
        return f"{match['before']}{shown}@"

    def parameter(match: re.Match[str]) -> str:
        return f"{match['name']}={HIDDEN if is_secret(match['name']) else match['value']}"

    return _PARAMETER.sub(parameter, _USER.sub(user, text))


def hidden(text: str) -> str:
    """Replace the secrets in URLs, environment variables and options of a command by `HIDDEN`."""

    def hide(match: re.Match[str]) -> str:
        value = match["value"]
        quote = value[0] if value[0] in "\"'" else ""
        shown = HIDDEN
        if not is_secret((match["name"] or match["option"]).lstrip("-")):
            shown = _ASSIGNED.sub(hide, value[1:-1]) if quote else value
        return f"{match['before']}{quote}{shown}{quote}"

    return _ADDRESS_USER.sub(f"{HIDDEN}@", _ASSIGNED.sub(hide, without_secrets(text)))


def without_secrets_of(url: str, text: str) -> str:
    """Replace the secrets of ``url`` in ``text``, for example in another library's error message."""
    if without_secrets(url) == url:
        return text
    parts = [match["user"] for match in _USER.finditer(url)]
    parts += [part for user in parts for part in user.split(":", 1)[1:]]
    parts += [match["value"] for match in _PARAMETER.finditer(url) if is_secret(match["name"])]
    for part in filter(None, parts):
        text = text.replace(part, HIDDEN)
    return text


def printable(text: str) -> str:
    r"""Escape the control characters of ``text``, so that a file name cannot control the terminal.

    Line breaks remain, bytes that are not UTF-8 become ``\udcXX``. Secrets in URLs are hidden.
    """
    text = without_secrets(text)
    if text.isprintable():
        return text
    return "".join(
        ascii(c)[1:-1]
        if c != "\n" and (unicodedata.category(c) in _UNSHOWN or c in _DIRECTIONS)
        else c
        for c in text
    )


def one_line(text: str) -> str:
    """Escape the control characters and line breaks of a name or path, to show it in a message."""
    return printable(text).replace("\n", "\\n")
