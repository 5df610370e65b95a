"""The shipped compose file and Dockerfile, in parts."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
KEPT = ("ENV", "WORKDIR", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD")
"""Instructions of a Dockerfile that say how an image is run."""


def header_commands() -> list[list[str]]:
    """Return the words of each command in the header of the compose file."""
    header = COMPOSE_FILE.read_text().split("\nname:")[0]
    lines = re.findall(r"^#   (.+)$", header.replace(" \\\n#    ", ""), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def stage(target: str, user: int = 1000) -> list[str]:
    """Return the instructions that say how the image ``target`` is run, with those of its base stages.

    Args:
        target: a stage of the Dockerfile.
        user: the build arguments USER_ID and GROUP_ID.
    """
    text = re.sub(r"^ *#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    stages: dict[str, tuple[str, list[str]]] = {}
    lines: list[str] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if begin := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            lines = []
            stages[begin[2]] = (begin[1], lines)
        elif line.split(" ")[0] in KEPT:
            lines.append(re.sub(r"\$\{(USER|GROUP)_ID\}", str(user), line))
    found: list[str] = []
    while target in stages:
        target, lines = stages[target]
        found = lines + found
    return found
