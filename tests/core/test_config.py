"""One config: flags, YAML and a dictionary say the same, and mistakes are explained with path, range and suggestion."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from worldfoundry.core.config import Config, parse_args, read_yaml, stable_hash
from worldfoundry.core.errors import ConfigError


class Optim(Config):
    lr: float = Field(default=1e-4, gt=0, le=1)
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay rates of the moments."""
    fused: bool = False
    """One kernel for all parameters."""


class Store(Config):
    folder: Path
    """Where to keep it."""
    copies: int = Field(default=1, ge=1, le=3)
    """How many."""


class Run(Config):
    """Does a run."""

    source: tyro.conf.Positional[Path]
    """What to read."""
    out: Path
    """Where to write."""
    optim: Optim = Optim()
    """Optimiser."""
    store: Store | None = None
    """An optional nested config."""
    kind: Literal["euler", "heun"] = "euler"
    """Solver."""
    sizes: tuple[int, ...] = (1, 2)
    """Sizes."""
    name: str | None = None
    """A name."""
    as_json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False
    """A renamed flag."""

    @model_validator(mode="after")
    def _names_differ(self) -> "Run":
        if self.out == self.source:
            raise ValueError("out must differ from source")
        return self


def parse(*argv: str, cls: type[Config] = Run) -> Config:
    return parse_args(cls, list(argv), "worldfoundry run")


def test_flags_file_and_dictionary_give_the_same_config(tmp_path):
    by_flags = parse(
        "in", "--out", "o", "--optim.lr", "0.5", "--optim.betas", "0.1", "0.2", "--optim.fused", "--sizes", "3", "--json"
    )
    values = {
        "source": "in",
        "out": "o",
        "optim": {"lr": 0.5, "betas": [0.1, 0.2], "fused": True},
        "sizes": [3],
        "as_json": True,
    }
    assert by_flags == Run.from_dict(values)
    by_flags.save(tmp_path / "run.yaml")
    assert parse("--config", str(tmp_path / "run.yaml")) == by_flags == Run.from_yaml(tmp_path / "run.yaml")
    assert by_flags.hash() == Run.from_dict(values).hash() != by_flags.replace(kind="heun").hash()


@settings(max_examples=30, deadline=None)
@given(
    lr=st.floats(1e-30, 1.0), name=st.none() | st.text(max_size=20), sizes=st.lists(st.integers(-(10**12), 10**12), max_size=4)
)
def test_yaml_keeps_every_value(tmp_path_factory, lr, name, sizes):
    path = tmp_path_factory.mktemp("yaml") / "c.yaml"
    config = Run(source=Path("a"), out=Path("b"), optim=Optim(lr=lr), name=name, sizes=tuple(sizes))
    config.save(path)
    assert Run.from_yaml(path) == config


def test_flags_win_over_the_file_and_fill_what_it_lacks(tmp_path):
    file = tmp_path / "part.yaml"
    file.write_text("out: o\noptim: {lr: 0.5}\nstore: {copies: 2}\n")
    config = parse("in", "--config", str(file), "--optim.lr", "1e-3", "store:store", "--store.folder", "s")
    assert (config.out, config.source) == (Path("o"), Path("in"))
    assert config.optim.lr == 1e-3
    assert parse("in", f"--config={file}", "store:store", "--store.folder", "s").optim.lr == 0.5


def test_nested_required_field_missing_in_the_file_is_asked_of_the_flags(tmp_path, capsys):
    class Outer(Config):
        store: Store
        """Nested and required."""

    file = tmp_path / "part.yaml"
    file.write_text("store: {copies: 2}\n")
    assert parse("--config", str(file), "--store.folder", "s", cls=Outer).store == Store(folder=Path("s"), copies=2)
    with pytest.raises(SystemExit) as stop:
        parse("--config", str(file), cls=Outer)
    assert stop.value.code == 2
    assert "--store.folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--optim.lr", "7"], ["--optim.lr", "7.0", "> 0, <= 1"]),
        (["--optim.lr", "nan"], ["--optim.lr", "nan"]),
        (["--optim.betas", "inf", "0.9"], ["--optim.betas.0", "finite"]),
        (["--out", "in"], ["out must differ from source"]),
    ],
)
def test_a_bad_value_is_one_line_with_flag_and_range(argv, words):
    with pytest.raises(ConfigError) as error:
        parse("in", *(["--out", "o"] if "--out" not in argv else []), *argv)
    assert "\n" not in error.value.message
    assert all(word in error.value.message for word in words), error.value.message
    assert "pydantic" not in str(error.value)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["in", "--out", "o", "--optim.lrr", "1"], "--optim.lr"),
        (["in", "--out", "o", "--kind", "eul"], "heun"),
        (["in", "--out", "o", "--optim.lr", "fast"], "--optim.lr"),
        (["in"], "--out"),
        (["in", "two", "--out", "o"], "two"),
    ],
)
def test_a_bad_flag_exits_with_2_and_names_the_right_one(argv, words, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*argv)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("out: o\noptimm: {lr: 1}\n", ["optimm", "'optim'"]),
        ("out: o\noptim: {lrr: 1}\n", ["optim.lrr", "'lr'"]),
        ("out: o\nstore: {folder: f, copies: 9}\n", ["store.copies", "9", ">= 1, <= 3"]),
        ("out: o\nstore: {folder: f, copys: 2}\n", ["store.copys", "'copies'"]),
        ("out: o\noptim: {betas: [0.1, wide]}\n", ["optim.betas.1", "wide"]),
        ("out: o\nkind: eul\n", ["kind", "heun"]),
        ("- a list\n", ["must hold fields"]),
        ("out: [\n", ["line 2", "not valid YAML"]),
        ("", ["must hold fields"]),
    ],
)
def test_a_bad_file_is_explained_with_its_name(tmp_path, text, words):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        parse("in", "--config", str(file))
    assert "bad.yaml" in error.value.message
    assert all(word in error.value.message for word in words), error.value.message
    assert "required" not in error.value.message  # what the file leaves out may still come by flag


def test_missing_file_and_missing_file_name():
    with pytest.raises(ConfigError, match="does not exist"):
        parse("--config", "nowhere.yaml")
    with pytest.raises(ConfigError, match="needs a file name"):
        parse("--config")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(Path("/"))


def test_print_config_prints_yaml_that_reads_back(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        parse("in", "--out", "o", "--print-config", "--sizes", "5")
    assert stop.value.code == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    assert Run.from_yaml(file) == Run(source=Path("in"), out=Path("o"), sizes=(5,))


def test_help_names_fields_ranges_and_what_every_verb_understands(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("Peak learning rate. [> 0, <= 1]", "--config", "--print-config", "--json", "SOURCE"))


def test_configs_are_frozen_and_forbid_unknown_fields():
    config = Optim()
    with pytest.raises(ValueError, match="frozen"):
        config.lr = 0.5
    with pytest.raises(ConfigError, match="Did you mean 'lr'"):
        config.replace(lrr=0.5)
    with pytest.raises(ConfigError, match=r"a record: lr: must be greater than 0 \(got -1; allowed: > 0, <= 1\)"):
        Optim.from_dict({"lr": -1}, where="a record")


def test_stable_hash_does_not_depend_on_order():
    assert stable_hash({"a": 1, "b": [1, 2]}) == stable_hash({"b": [1, 2], "a": 1}) != stable_hash({"a": 1, "b": [2, 1]})
