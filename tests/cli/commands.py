"""Every command that can be typed, read from the verb modules: (words, config class)."""

from importlib import import_module

from worldfoundry.cli.main import VERBS


def commands():
    for verb in VERBS:
        module = import_module(f"worldfoundry.cli.{verb}")
        if hasattr(module, "SUBCOMMANDS"):
            yield from (((verb, name), row[0]) for name, row in module.SUBCOMMANDS.items())
        else:
            yield (verb,), module.CONFIG
