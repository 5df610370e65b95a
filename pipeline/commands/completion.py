"""`biloom completion`: the script that completes a command line in a shell."""

from typing import Any, Literal

import shtab

from pipeline.commands.parser import Parser
from pipeline.config.annotated import setting_names
from pipeline.config.load import shipped_configs

PREAMBLE = {
    "bash": """\
_biloom_settings() {{
  compgen -W "{words}" -- "$1"
  compgen -f -- "$1"
}}
""",
    "zsh": """\
_biloom_settings() {{
  compadd -S '' -- {words}
  _files
}}
""",
    "fish": """\
function _biloom_settings
  printf '%s\\n' {words}
  __fish_complete_path (commandline -ct)
end
""",
}
"""Shell -> a function that completes names of shipped configs, keys of settings and files."""

# Shell -> how a completion script calls that function.
SETTINGS = {"bash": "_biloom_settings", "zsh": "_biloom_settings", "fish": "(_biloom_settings)"}

AFTER = {
    # Without this, bash writes a space after `train.steps=` and quotes its equals sign.
    "bash": """
_biloom() {
  _shtab_biloom "$@"
  if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then
    compopt -o nospace +o filenames
  fi
}
complete -o bashdefault -F _biloom biloom
""",
}


def completion(shell: Literal["bash", "zsh", "fish"], parser: Parser) -> None:
    """Print the script for ``shell`` that completes the command line of ``parser``."""
    words = " ".join([*shipped_configs(), *(f"{name}=" for name in setting_names())])
    preamble: Any = {
        shell: PREAMBLE[shell].format(words=words)
    }  # annotated as str, but shtab takes a dict
    _set_completers(parser)
    script = shtab.complete(parser.own, shell, preamble=preamble) + AFTER.get(shell, "")
    # In zsh, "(*):" completes one more argument, "*:" every further one.
    print(script.replace('"(*):', '"*:') if shell == "zsh" else script)


def _set_completers(parser: Parser) -> None:
    """Tell shtab, by an attribute of each argument, how the shell completes it."""
    for name, action in parser.arguments.items():
        if name == "config":
            vars(action)["complete"] = SETTINGS
        elif action.nargs != 0 and not action.choices and name != "texts":
            vars(action)["complete"] = shtab.FILE
    for command in parser.commands.values():
        _set_completers(command)
