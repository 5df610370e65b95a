"""The commands that use vectors for a task, in the order in which the help lists them."""

from pipeline.commands.command import Command, Group

TASK_COMMANDS: dict[str, Command | Group] = {}
