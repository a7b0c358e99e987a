"""Typed frozen configs: one pydantic model is the flags (tyro), the YAML file and the record saved beside every output.

The sentence under a field is its documentation and its `--help`.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from worldfoundry.core.errors import ConfigError, did_you_mean
from worldfoundry.core.files import atomic_path


class Config(BaseModel):
    """Base of every config: frozen, unknown fields forbidden, numbers finite, field docstrings kept as descriptions."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
    )

    packaged: ClassVar[Path | None] = None
    """A folder of YAML files that `--config` finds by name, without a path."""

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

    def identity(self) -> dict[str, Any]:
        """`to_dict` without the fields marked `EXECUTION`, at every depth."""
        values = self.to_dict()
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if EXECUTION in field.metadata:
                del values[name]
            elif isinstance(value, Config):
                values[name] = value.identity()
        return values

    def hash(self, length: int = 12) -> str:
        """A short hash of the identity, stable across processes."""
        return stable_hash(self.identity(), length)


C = TypeVar("C", bound=Config)

EXECUTION = "execution"
"""Marks a field (`Annotated[X, EXECUTION]`) that says how work is carried out, not which: runs that differ in it are the same."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What every generator of random numbers (Python, NumPy, torch) takes, with room to count up from."""


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
    except OSError as error:
        raise ConfigError(f"The config file {str(path)!r} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"The config file {str(path)!r}{where} is not valid YAML: {what}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"The config file {str(path)!r} must hold fields, not {type(values).__name__}.")
    return values


def explain_validation(error: ValidationError, cls: type[BaseModel], where: str) -> str:
    """One line per problem: dotted path, what is wrong, the offending value, and the closest known field for a typo.

    `where` names the source (a file, a record); the empty string means flags, and paths are then written as flags.
    """
    return "\n".join(_explain(problem, cls, where) for problem in error.errors(include_url=False))


def _explain(problem: Any, cls: type[BaseModel], where: str) -> str:
    names, owner, field = _locate(cls, problem["loc"])
    path = ".".join(names)
    prefix = (
        f"{where}: {path}: " if where and path else f"{where}: " if where else f"--{path}: ".replace("_", "-") if path else ""
    )
    if problem["type"] == "extra_forbidden":
        return f"{prefix}unknown field. {did_you_mean(names[-1], list(getattr(owner, 'model_fields', {})))}"
    if problem["type"] == "missing":
        return f"{prefix}this field is required."
    message = problem["msg"].removeprefix("Value error, ").replace("Input should ", "must ", 1).rstrip(".")
    if isinstance(problem["input"], dict | BaseModel):  # a rule about several fields: the message names them
        return f"{prefix}{message}."
    limits = allowed_range(field)
    got = repr(problem["input"])
    got = got if len(got) <= 80 else got[:77] + "..."
    return f"{prefix}{message} (got {got}" + (f"; allowed: {limits})." if limits else ").")


def _locate(cls: Any, loc: tuple[int | str, ...]) -> tuple[list[str], Any, FieldInfo | None]:
    """The dotted path of an error without pydantic's union tags, the model that holds its last part, and that field."""
    names: list[str] = []
    owner, field = cls, None
    for i, part in enumerate(loc):
        fields = getattr(cls, "model_fields", {})
        if part in fields or isinstance(part, int) or (fields and i == len(loc) - 1):
            names.append(str(part))
            owner, field = (cls, fields.get(part)) if fields else (owner, field)
            cls = _model_in(fields[part].annotation) if part in fields else cls
    return names, owner, field


def _model_in(annotation: Any) -> Any:
    """The config class inside `X`, `X | None`, `tuple[X, ...]` or `Annotated[X, ...]`; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)


def allowed_range(field: FieldInfo | None) -> str:
    """The numeric limits of a field in words, e.g. `> 0, <= 1`; empty if it has none."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "a multiple of"}
    metadata = field.metadata if field is not None else []
    return ", ".join(f"{sign} {getattr(m, key):g}" for m in metadata for key, sign in signs.items() if hasattr(m, key))


# --- flags ---------------------------------------------------------------------------------------------------------

CONFIG_FILE = "--config FILE (YAML with these fields; flags win), "
EVERYWHERE = "Also: {config_file}--print-config, --debug (tracebacks)."


def parse_args(cls: type[C], argv: list[str], prog: str, description: str = "") -> C:
    """Flags → config. `--config FILE` gives the defaults that flags override; `--print-config` prints YAML and exits.

    A config with a field of its own called `config` keeps that flag for itself (`convert` does).

    tyro reads the flags (syntax, choices, missing ones, did-you-mean: a boxed message and exit code 2; `--help` exits
    with 0); pydantic judges the values afterwards, so a bad value is a ConfigError whether it came by flag or by file.
    """
    import tyro

    own_flag = "config" in cls.model_fields
    argv, config_file = (argv, None) if own_flag else _take_option(argv, "--config")
    print_only = "--print-config" in argv
    argv = [argument for argument in argv if argument != "--print-config"]
    options: Any = {"default": _from_file(cls, Path(config_file))} if config_file is not None else {}
    also = EVERYWHERE.format(config_file="" if own_flag else CONFIG_FILE)
    text = "\n\n".join(part for part in (description, also) if part)
    parsed = tyro.cli(cls, args=argv, prog=prog, description=text, registry=_registry(), **options)
    try:
        config = cls.model_validate(parsed.model_dump(warnings=False))
    except ValidationError as error:
        hint = f"Run `{prog} --help` for every field and its range."
        raise ConfigError(explain_validation(error, cls, ""), hint) from error
    if print_only:
        sys.stdout.write(config.to_yaml())
        raise SystemExit(0)
    return config


def _registry() -> Any:
    """Tells tyro to collect the fields of a Config without validating them, with the allowed range in the help."""
    from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

    registry = ConstructorRegistry()

    @registry.struct_rule
    def config_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        if not (isinstance(info.type, type) and issubclass(info.type, Config)):
            return None
        cls: type[Config] = info.type
        hints = get_type_hints(cls, include_extras=True)
        fields = tuple(
            StructFieldSpec(
                name=name,
                type=_with_metavar(hints[name], name, field),
                default=_flag_default(info.default, name, field),
                helptext=_help(field),
            )
            for name, field in cls.model_fields.items()
        )
        return StructConstructorSpec(instantiate=cls.model_construct, fields=fields)

    return registry


def _with_metavar(hint: Any, name: str, field: FieldInfo) -> Any:
    """A positional argument appears in the usage line by its name, not its type (choices stay choices)."""
    import tyro

    positional = tyro.conf.Positional in field.metadata and get_origin(field.annotation) is not Literal
    named = any(getattr(marker, "metavar", None) for marker in field.metadata)
    return Annotated[hint, tyro.conf.arg(metavar=name.upper())] if positional and not named else hint


def _flag_default(instance: Any, name: str, field: FieldInfo) -> Any:
    import tyro

    if isinstance(instance, Config):
        return getattr(instance, name)
    return tyro.MISSING if field.is_required() else field.get_default(call_default_factory=True)


def _help(field: FieldInfo) -> str:
    limits = allowed_range(field)
    return (field.description or "") + (f" [{limits}]" if limits else "")


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


def _from_file(cls: type[C], path: Path) -> C:
    """An instance from YAML in which required fields that the file leaves out are still asked of the flags."""
    values = read_yaml(_find_config(cls, path))
    try:
        cls.model_validate(values)
    except ValidationError as error:
        lines = [_explain(e, cls, str(path)) for e in error.errors(include_url=False) if e["type"] != "missing"]
        if lines:
            raise ConfigError("\n".join(lines)) from error
    return _with_holes(cls, values)


def _find_config(cls: type[Config], path: Path) -> Path:
    """The file itself or, for a bare name, the one of that name that ships with the config. Raises ConfigError."""
    if cls.packaged is None or path.exists() or len(path.parts) > 1 or path.suffix:
        return path
    names = sorted(file.stem for file in cls.packaged.glob("*.yaml"))
    if path.name not in names:
        raise ConfigError(f"There is no config file and no packaged config {path.name!r}.", did_you_mean(path.name, names))
    return cls.packaged / f"{path.name}.yaml"


def _with_holes(cls: Any, values: dict[str, Any]) -> Any:
    """Valid `values` as an instance; required fields that they lack become tyro's MISSING."""
    parsed: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        if name not in values:
            parsed[name] = _flag_default(None, name, field)
        elif isinstance(values[name], dict) and (model := _model_in(field.annotation)) is not None:
            parsed[name] = _with_holes(model, values[name])
        else:
            parsed[name] = TypeAdapter(field.annotation).validate_python(values[name])
    return cls.model_construct(**parsed)
