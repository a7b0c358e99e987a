"""Typed frozen configs: one pydantic model is the flags (tyro), the YAML file and the record saved beside every output.

The sentence under a field is its documentation and its `--help`.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from worldfoundry.core.errors import ConfigError, did_you_mean
from worldfoundry.core.files import atomic_path


class Config(BaseModel):
    """Base of every config: frozen, unknown fields forbidden, field docstrings kept as descriptions."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, protected_namespaces=()
    )

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, where: str = "config") -> Self:
        """Validate a plain dictionary. Raises ConfigError with dotted paths, the offending values and suggestions."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(explain_validation(error, cls, where)) from error

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read a YAML file that holds exactly the fields of this config."""
        return cls.from_dict(read_yaml(path), where=str(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def save(self, path: Path) -> None:
        """Write the resolved config as YAML, atomically."""
        with atomic_path(path) as temporary:
            temporary.write_text(self.to_yaml(), encoding="utf-8")

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        return type(self).from_dict({**self.model_dump(), **changes})

    def hash(self, length: int = 12) -> str:
        """A short hash of the resolved values, stable across processes."""
        return stable_hash(self.to_dict(), length)


C = TypeVar("C", bound=Config)


def stable_hash(value: Any, length: int = 12) -> str:
    """SHA-256 of canonical JSON, shortened."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raises ConfigError that names file and line."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"The config file {str(path)!r} does not exist.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The config file {str(path)!r} is not valid YAML: {str(error).splitlines()[-1].strip()}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"The config file {str(path)!r} must hold fields, not {type(values).__name__}.")
    return values


def explain_validation(error: ValidationError, cls: type[BaseModel], where: str) -> str:
    """One line per problem: dotted path, what is wrong, the offending value, and the closest known field for a typo."""
    lines = []
    for problem in error.errors(include_url=False):
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(
                f"{where}: {path}: unknown field. {did_you_mean(str(problem['loc'][-1]), _siblings(cls, problem['loc']))}"
            )
        elif problem["type"] == "missing":
            lines.append(f"{where}: {path}: this field is required.")
        else:
            message = problem["msg"].removeprefix("Value error, ").rstrip(".")
            lines.append(f"{where}: {path}: {message} (got {problem['input']!r}).")
    return "\n".join(lines)


def _siblings(cls: Any, loc: tuple[int | str, ...]) -> list[str]:
    """Field names of the model that holds the last part of `loc`."""
    for part in loc[:-1]:
        field = getattr(cls, "model_fields", {}).get(part)
        if field is not None:
            cls = field.annotation
    return list(getattr(cls, "model_fields", {}))


def parse_args(cls: type[C], argv: list[str], prog: str, description: str = "") -> C:
    """Flags → config. `--config FILE` gives the defaults that flags override; `--print-config` prints YAML and exits.

    Exits with code 2 and a boxed message on a bad flag (tyro's), with 0 after `--help` and `--print-config`.
    """
    import tyro

    argv, config_file = _take_option(argv, "--config")
    print_only = "--print-config" in argv
    argv = [argument for argument in argv if argument != "--print-config"]
    default = _defaults_with_holes(cls, read_yaml(Path(config_file)), config_file) if config_file else None
    if default is not None:
        config = tyro.cli(cls, args=argv, prog=prog, description=description or None, default=default)
    else:
        config = tyro.cli(cls, args=argv, prog=prog, description=description or None)
    if print_only:
        sys.stdout.write(config.to_yaml())
        raise SystemExit(0)
    return cls.from_dict(config.model_dump())


def _take_option(argv: list[str], name: str) -> tuple[list[str], str | None]:
    """Remove `name VALUE` or `name=VALUE` from argv; return what is left and the value."""
    rest, value, skip = [], None, False
    for i, argument in enumerate(argv):
        if skip:
            skip = False
        elif argument == name:
            if i + 1 >= len(argv):
                raise ConfigError(f"{name} needs a file name.")
            value, skip = argv[i + 1], True
        elif argument.startswith(name + "="):
            value = argument[len(name) + 1 :]
        else:
            rest.append(argument)
    return rest, value


def _defaults_with_holes(cls: type[C], values: dict[str, Any], where: str) -> C:
    """An instance from YAML in which required fields that the file leaves out are still asked of the flags."""
    import tyro

    try:
        return cls.model_validate(values)
    except ValidationError as error:
        missing = {str(e["loc"][0]) for e in error.errors() if e["type"] == "missing" and len(e["loc"]) == 1}
        if any(e["type"] != "missing" or len(e["loc"]) > 1 for e in error.errors()):
            raise ConfigError(explain_validation(error, cls, where)) from error
    parsed: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        if name in missing:
            parsed[name] = tyro.MISSING
        elif name in values:
            parsed[name] = TypeAdapter(field.annotation).validate_python(values[name])
        else:
            parsed[name] = field.get_default(call_default_factory=True)
    return cls.model_construct(**parsed)
