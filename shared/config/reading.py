"""How files and the command line fill the schema."""

import sys
from pathlib import Path
from typing import Any

from shared.config.help import format_help
from shared.config.rules import suggest, validate_config
from shared.config.schema import Config, list_keys, name_type
from shared.errors import UserError
from shared.machine.files import REPOSITORY


def find_config_file(name: str) -> Path:
    """A YAML file relative to the working folder or, failing that, to the repository. Raises `UserError`."""
    for folder in (Path.cwd(), REPOSITORY):
        try:
            if (folder / name).is_file():
                return folder / name
        except OSError as error:  # a folder that may not be looked into, a name that is too long
            raise UserError(f"config file '{name}' cannot be read: {error.strerror}") from None
    presets = [str(path.relative_to(REPOSITORY)) for path in sorted((REPOSITORY / "configs").rglob("*.yaml"))]
    raise UserError(f"config file '{name}' does not exist; {suggest(name, presets)}")


def flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as `{dotted key: value}`."""
    found = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            found |= flatten(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def build_config(sources: list[tuple[str, Any]]) -> Config:
    """Merge OmegaConf trees, each with the name of where it comes from, over the schema. Raises `UserError`."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException, ValidationError

    known = list_keys()
    merged = OmegaConf.structured(Config)
    for origin, tree in sources:
        try:
            given = flatten(OmegaConf.to_container(tree, resolve=True))
        except OmegaConfBaseException as error:
            raise UserError(f"{origin}: {str(error).splitlines()[0]}") from None
        for dotted, value in given.items():
            if dotted not in known:
                sections = {name.rpartition(".")[0] for name in known} - {""}
                if dotted in sections:
                    raise UserError(f"{origin}: '{dotted}' is a section, not a value; set one of its keys, such as "
                                    f"'{next(name for name in known if name.startswith(dotted + '.'))}'")
                raise UserError(f"{origin}: unknown key '{dotted}'; {suggest(dotted, list(known))}")
            if value is None or value == "???":  # OmegaConf's word for a missing value
                raise UserError(f"{origin}: '{dotted}' has no value; give one, or leave the key out for its default")
            try:
                if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
                    raise ValidationError  # OmegaConf would take it, and fail when all is put together
                OmegaConf.update(merged, dotted, value)
            except OmegaConfBaseException as error:
                raise UserError(f"{origin}: {dotted}={value!r} is not of type {name_type(known[dotted])}") from error
    config = OmegaConf.to_object(merged)
    validate_config(config)
    return config


def parse_config(arguments: list[str], command: str, purpose: str) -> Config:
    """The config that a command line asks for.

    `--help` and `--print-config` print and leave with status 0.

    Raises:
        UserError: for a missing file, an unknown key, a value of the wrong type, out of range or in contradiction.
    """
    if "--help" in arguments or "-h" in arguments:
        print(format_help(command, purpose))
        sys.exit(0)

    flags = [word for word in arguments if word.startswith("-")]
    words = [word for word in arguments if not word.startswith("-")]
    if unknown := [flag for flag in flags if flag != "--print-config"]:
        raise UserError(f"unknown option '{unknown[0]}'; options are --help and --print-config, keys are key=value")
    files = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    config = build_config([(name, read_yaml(find_config_file(name))) for name in files or [find_base_file(overrides)]]
                   + [("command line", read_override(word)) for word in overrides])
    if "--print-config" in flags:
        print(to_yaml(config), end="")
        sys.exit(0)
    return config


def find_base_file(overrides: list[str]) -> str:
    """The file to start from where none is named: that of the run to resume, else the quick start."""
    for word in overrides:
        name, _, value = word.partition("=")
        if name == "resume" and Path(value).expanduser().joinpath("config.yaml").is_file():
            return str(Path(value).expanduser() / "config.yaml")
    return "configs/quickstart.yaml"


def read_override(word: str) -> Any:
    """One `key=value` of the command line as an OmegaConf tree."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        return OmegaConf.from_dotlist([word])
    except (YAMLError, OmegaConfBaseException):
        raise UserError(f"command line: '{word}' cannot be read as key=value; quote the value") from None


def read_yaml(path: Path) -> Any:
    """A YAML file as an OmegaConf tree. Raises `UserError` naming the line where it is not valid YAML."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        tree = OmegaConf.load(path)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path}: not valid YAML{f' in line {mark.line + 1}' if mark else ''}: "
                        f"{getattr(error, 'problem', None) or error}") from None
    except (OSError, UnicodeDecodeError, OmegaConfBaseException) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be read: {reason}") from None
    if not OmegaConf.is_dict(tree):
        raise UserError(f"{path}: holds a list or a single value; expected keys such as 'train:' with values under it")
    return tree


def to_yaml(config: Config) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(config))


def to_dict(config: Config) -> dict[str, Any]:
    """The config as nested plain dictionaries, for W&B and JSON."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.structured(config))


def load_config(path: Path) -> Config:
    """A config that a run folder keeps. Raises `UserError`."""
    return build_config([(str(path), read_yaml(path))])
