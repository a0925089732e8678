"""Completion scripts for bash, zsh and fish, made of the commands' shapes. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

from fngw.cli.shapes import Option, Shape, Value

__all__ = ["Shell", "script"]

#: Prints the names of deployments, one a line, soon or not at all.
NAMES = "fngw completion --names 2>/dev/null"


class Shell(enum.StrEnum):
    """The shells that there are scripts for."""

    bash = enum.auto()
    zsh = enum.auto()
    fish = enum.auto()


def script(shell: Shell, commands: Sequence[Shape]) -> str:
    """Return the text that a shell has to run."""
    lines = {Shell.bash: _bash, Shell.zsh: _zsh, Shell.fish: _fish}[shell](commands)
    return "\n".join(lines) + "\n"


# -- bash -------------------------------------------------------------------------------------------------

_BASH_HEAD = """\
# Completes fngw in bash:  source <(fngw completion bash)

_fngw_from() {  # the words of $1, one a line, that begin with what is typed
    local IFS=$'\\n'
    COMPREPLY=($(compgen -W "$1" -- "$cur"))
}

_fngw_files() {  # files, all or those that end in $1, and folders
    local IFS=$'\\n'
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -X "${1:+!*$1}" -- "$cur") $(compgen -d -- "$cur"))
}

_fngw() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}
    local valued="" given=0 i
    COMPREPLY=()"""
_BASH_COUNT = """\
    for ((i = 2; i < COMP_CWORD; i++)); do  # arguments that stand before this one
        if [[ $valued == *" ${COMP_WORDS[i]} "* ]]; then
            ((i++))
        elif [[ ${COMP_WORDS[i]} != -* ]]; then
            ((given++))
        fi
    done"""


def _bash(commands: Sequence[Shape]) -> list[str]:
    first = [*(c.name for c in commands), "--help", "--version"]
    lines = [_BASH_HEAD, "    if ((COMP_CWORD == 1)); then", f"        {_bash_words(first)}", "        return"]
    lines += ["    fi", '    case "$command $prev" in']
    for value, patterns in _valued(commands).items():
        lines.append(f"        {patterns}) {_bash_value(*value)}; return ;;")
    lines += ["    esac", "    case $command in"]
    for command in commands:
        flags = [flag for option in command.options for flag in option.flags]
        values = " ".join(flag for option in command.options if option.value for flag in option.flags)
        lines.append(f"        {command.name})")
        lines.append(f'            valued=" {values} "')
        if flags:
            lines.append(f"            if [[ $cur == -* ]]; then {_bash_words(flags)}; return; fi ;;")
        else:
            lines.append("            ;;")
    lines += ["    esac", _BASH_COUNT, "    case $command in"]
    for action, names in _bash_arguments(commands).items():
        lines.append(f"        {'|'.join(names)}) {action} ;;")
    return [*lines, "    esac", "}", "", "complete -F _fngw fngw"]


def _bash_arguments(commands: Iterable[Shape]) -> dict[str, list[str]]:
    """What completes arguments, and those of which commands."""
    found: dict[str, list[str]] = {}
    for command in commands:
        if command.first:
            only = "" if command.many else "((given)) || "
            found.setdefault(only + _bash_value(command.first, command.words), []).append(command.name)
    return found


def _valued(commands: Iterable[Shape]) -> dict[tuple[Value, tuple[str, ...]], str]:
    """What comes after options, and after which: patterns for ``case``."""
    found: dict[tuple[Value, tuple[str, ...]], list[str]] = {}
    for command in commands:
        for option in command.options:
            if option.value:
                found.setdefault((option.value, option.words), []).extend(
                    f'"{command.name} {flag}"' for flag in option.flags
                )
    return {value: "|".join(patterns) for value, patterns in found.items()}


def _bash_value(value: Value, words: tuple[str, ...]) -> str:
    if value == Value.WORDS:
        return _bash_words(words)
    calls = {
        Value.NAMES: f'_fngw_from "$({NAMES})"',
        Value.PYTHON: "_fngw_files .py",
        Value.FILE: "_fngw_files",
        Value.FOLDER: "_fngw_files /",
    }
    return calls.get(value, ":")


def _bash_words(words: Iterable[str]) -> str:
    return "_fngw_from $'" + "\\n".join(words) + "'"


# -- zsh --------------------------------------------------------------------------------------------------

_ZSH_HEAD = """\
#compdef fngw
# Completes fngw in zsh:  source <(fngw completion zsh), after compinit; or as a file _fngw on your fpath

_fngw_names() {
    local -a names
    names=(${(f)"$(NAMES)"})
    compadd -a names
}

_fngw() {
    local -a commands
    commands=(""".replace("NAMES", NAMES)
_ZSH_MIDDLE = """\
    )
    if ((CURRENT == 2)); then
        _describe -t commands command commands
        return
    fi
    local command=$words[2]
    shift words
    ((CURRENT--))
    case $command in"""
_ZSH_TAIL = """\
    esac
}

if [[ $funcstack[1] == _fngw ]]; then  # run as a file of the fpath
    _fngw "$@"
else
    compdef _fngw fngw
fi"""


def _zsh(commands: Sequence[Shape]) -> list[str]:
    lines = [_ZSH_HEAD, *(f"        '{c.name}:{_quoted(c.summary)}'" for c in commands), _ZSH_MIDDLE]
    for command in commands:
        specs = [_zsh_option(option) for option in command.options]
        if command.first:
            place = "*" if command.many else "1"
            specs.append(f"'{place}:{command.first}:{_zsh_value(command.first, command.words)}'")
        lines.append(f"        {command.name}) _arguments {' '.join(specs)} ;;")
    return [*lines, _ZSH_TAIL]


def _zsh_option(option: Option) -> str:
    text = _quoted(option.help).replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    value = f":{option.value}:{_zsh_value(option.value, option.words)}" if option.value else ""
    if len(option.flags) == 1:
        return f"'{'*' if option.many else ''}{option.flags[0]}[{text}]{value}'"
    return f"'({' '.join(option.flags)})'{{{','.join(option.flags)}}}'[{text}]{value}'"


def _zsh_value(value: Value, words: tuple[str, ...]) -> str:
    actions = {
        Value.NAMES: "_fngw_names",
        Value.PYTHON: '_files -g "*.py"',
        Value.FILE: "_files",
        Value.FOLDER: "_files -/",
        Value.WORDS: f"({' '.join(words)})",
    }
    return actions.get(value, " ")


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")


# -- fish -------------------------------------------------------------------------------------------------

_FISH_HEAD = """\
# Completes fngw in fish:  fngw completion fish > ~/.config/fish/completions/fngw.fish

function __fngw_first # whether the first argument of a command is being typed
    test (count (string match --invert -- '-*' (commandline --tokenize --cut-at-cursor --current-process))) -eq 2
end

complete --command fngw --no-files"""


def _fish(commands: Sequence[Shape]) -> list[str]:
    lines = [_FISH_HEAD]
    for command in commands:
        lines.append(_fish_line("__fish_use_subcommand", f"--arguments {command.name}", command.summary))
    for flag, text in (("help", "the commands"), ("version", "the version")):
        lines.append(_fish_line("__fish_use_subcommand", f"--long-option {flag}", text))
    for command in commands:
        seen = f"__fish_seen_subcommand_from {command.name}"
        lines += [_fish_line(seen, _fish_option(option), option.help) for option in command.options]
        if command.first:
            condition = seen if command.many else f"{seen}; and __fngw_first"
            lines.append(_fish_line(condition, _fish_value(command.first, command.words), ""))
    return lines


def _fish_line(condition: str, what: str, help: str) -> str:
    described = f" --description '{_fish_quoted(help)}'" if help else ""
    return f"complete --command fngw --condition '{condition}' {what}{described}"


def _fish_option(option: Option) -> str:
    kinds = [
        f"--long-option {flag[2:]}" if flag.startswith("--") else f"--short-option {flag[1:]}"
        for flag in option.flags
    ]
    if option.value:
        kinds += ["--require-parameter", _fish_value(option.value, option.words)]
    return " ".join(kinds).rstrip()


def _fish_value(value: Value, words: tuple[str, ...]) -> str:
    sources = {
        Value.NAMES: f"--arguments '({NAMES})'",
        Value.PYTHON: "--arguments '(__fish_complete_suffix .py)'",
        Value.FILE: "--force-files",
        Value.FOLDER: "--arguments '(__fish_complete_directories)'",
        Value.WORDS: f"--arguments '{' '.join(words)}'",
    }
    return sources.get(value, "")


def _fish_quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
