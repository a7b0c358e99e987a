"""Every command that can be typed, read from the verb modules: (words, config class)."""

from importlib import import_module

from worldfoundry.cli.main import VERBS


def commands():
    for verb in VERBS:
        module = import_module(f"worldfoundry.cli.{verb}")
        yield from (((verb, name), row[0]) for name, row in getattr(module, "SUBCOMMANDS", {}).items())
        if hasattr(module, "CONFIG"):
            yield (verb,), module.CONFIG
