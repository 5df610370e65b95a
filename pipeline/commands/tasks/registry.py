"""The commands that use vectors for a task, in the order in which the help lists them."""

from pipeline.commands.command import Command, Group
from pipeline.commands.tasks.classification.command import CLASSIFY
from pipeline.commands.tasks.explanation.command import EXPLAIN
from pipeline.commands.tasks.generate_command import GENERATE
from pipeline.commands.tasks.probing.command import MAP, NEIGHBOURS, PROBE
from pipeline.commands.tasks.tagging.command import TAG

TASK_COMMANDS: dict[str, Command | Group] = {
    "classify": CLASSIFY,
    "tag": TAG,
    "explain": EXPLAIN,
    "probe": PROBE,
    "neighbours": NEIGHBOURS,
    "map": MAP,
    "generate": GENERATE,
}
