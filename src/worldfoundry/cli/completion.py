"""`worldfoundry completion bash|zsh`: a script that completes verbs, sub-verbs, flags and choices.

The words come from the verb table and the configs at the moment of printing, so nothing is listed twice in the code.
Install for bash: `worldfoundry completion bash >> ~/.bashrc`; for zsh: `worldfoundry completion zsh >> ~/.zshrc`.
"""

from importlib import import_module
from typing import Any, Literal, get_args, get_origin

import tyro

from worldfoundry.cli.main import VERBS
from worldfoundry.core.config import Config

EVERYWHERE = ("--help", "--config", "--print-config", "--debug")

# One `case` serves both shells. Its key is position:verb:sub-verb:previous word; an empty list completes file names.
BASH = """_worldfoundry() {
    local candidates=""
    case "$COMP_CWORD:${COMP_WORDS[1]}:${COMP_WORDS[2]}:${COMP_WORDS[COMP_CWORD-1]}" in
CASES
    esac
    COMPREPLY=($(compgen -W "$candidates" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _worldfoundry worldfoundry
"""
ZSH = """_worldfoundry() {
    local candidates=""
    case "$((CURRENT - 1)):${words[2]}:${words[3]}:${words[CURRENT-1]}" in
CASES
    esac
    if [[ $PREFIX != -* && ( -z "$candidates" || "$candidates" == *--config* ) ]]; then _files; fi
    compadd -- ${=candidates}
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _worldfoundry worldfoundry
"""


class CompletionConfig(Config):
    """Print a completion script: `eval "$(worldfoundry completion bash)"`, or append it to your shell's start file."""

    shell: tyro.conf.Positional[Literal["bash", "zsh"]]
    """The shell to write for."""


def run(config: CompletionConfig) -> int:
    print(script(config.shell), end="")
    return 0


CONFIG = CompletionConfig


def script(shell: Literal["bash", "zsh"]) -> str:
    """The completion script of a shell as text."""
    cases = "\n".join(f'        {pattern}) candidates="{" ".join(words)}" ;;' for pattern, words in completions())
    return {"bash": BASH, "zsh": ZSH}[shell].replace("CASES", cases)


def completions() -> list[tuple[str, tuple[str, ...]]]:
    """(case pattern, candidates), the most specific first."""
    cases: list[tuple[str, tuple[str, ...]]] = [("1:*", (*VERBS, "--help", "--version"))]
    for verb in VERBS:
        module = import_module(f"worldfoundry.cli.{verb}")
        subcommands = getattr(module, "SUBCOMMANDS", {})
        own = _cases_of(f"{verb}:*", module.CONFIG) if hasattr(module, "CONFIG") else []
        if subcommands:
            cases.append((f"2:{verb}:*", (*subcommands, *(own[-1][1] if own else ("--help",)))))
        for name, row in subcommands.items():
            cases += _cases_of(f"{verb}:{name}", row[0])
        cases += own
    return cases


def _cases_of(where: str, config_class: type[Config]) -> list[tuple[str, tuple[str, ...]]]:
    flags, positional = flags_of(config_class)
    choices = [(f"*:{where}:{flag}", words) for flag, words in flags.items() if words]
    return [*choices, (f"*:{where}:*", (*positional, *flags, *EVERYWHERE))]


def flags_of(config_class: type[Config], prefix: str = "") -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Every flag of a config with its choices (empty = free), and the choices of its positional arguments."""
    flags: dict[str, tuple[str, ...]] = {}
    positional: tuple[str, ...] = ()
    for name, field in config_class.model_fields.items():
        choices = _choices(field.annotation)
        # tyro.conf.arg(name="json") renames a flag; its marker is recognised by the attribute, since its class is private.
        renamed = next((m.name for m in field.metadata if isinstance(getattr(m, "name", None), str)), name)
        flag = f"{prefix}{renamed}".replace("_", "-")
        if any(isinstance(part, type) and issubclass(part, Config) for part in get_args(field.annotation)):
            continue  # lists of options, such as a training's stages, are written in a YAML file
        if tyro.conf.Positional in field.metadata:
            positional += choices
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            flags |= flags_of(field.annotation, f"{flag}.")[0]
        elif field.annotation is bool and not field.is_required():
            flags[f"--{flag}"] = ()
            if tyro.conf.FlagCreatePairsOff not in field.metadata:
                flags[f"--{_negated(flag)}"] = ()
        else:
            flags[f"--{flag}"] = choices
    return flags, positional


def _negated(flag: str) -> str:
    """`optim.fused` → `optim.no-fused`, as tyro writes it."""
    *groups, last = flag.split(".")
    return ".".join((*groups, f"no-{last}"))


def _choices(annotation: Any) -> tuple[str, ...]:
    """The words of a Literal, also inside `X | None` or a tuple; of a mapping none, since its keys are free."""
    if get_origin(annotation) is dict:
        return ()
    if get_origin(annotation) is Literal:
        return tuple(str(word) for word in get_args(annotation))
    return tuple(word for part in get_args(annotation) for word in _choices(part))
