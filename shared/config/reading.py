"""How files and the command line fill the schema."""

import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_origin

from shared.config.help import format_help
from shared.config.rules import suggest, validate_config, validate_values
from shared.config.schema import Config, get_value, list_keys
from shared.config.values import Scalar, has_reference, locate, read_value, split_list, to_plain
from shared.errors import UserError, shorten
from shared.machine.files import REPOSITORY


def find_config_file(name: str) -> Path:
    """A YAML file relative to the working folder or, failing that, to the repository. Raises `UserError`."""
    for folder in (Path.cwd(), REPOSITORY):
        try:
            if (folder / name).is_file():
                return folder / name
        except OSError as error:  # a folder that may not be looked into, a name that is too long
            raise UserError(f"config file '{name}' cannot be read: {error.strerror}") from None
    kept = os.path.join(name, "config.yaml")
    if os.path.isfile(kept):
        raise UserError(f"config file '{name}' does not exist, it is a run folder; name {kept}")
    presets = [str(path.relative_to(REPOSITORY)) for path in sorted((REPOSITORY / "configs").rglob("*.yaml"))]
    raise UserError(f"config file '{name}' does not exist; {suggest(name, [*presets, *list_keys()])}")


def is_file(word: str) -> bool:
    return any(os.path.isfile(folder / word) for folder in (Path.cwd(), REPOSITORY))


def is_path(word: str) -> bool:
    """Whether a word of the command line is the path of a config file, there or not, and not key=value.

    A path may hold '=' too, as that of a run of the experiment lr=0.1 does.
    """
    name, sign, _ = word.partition("=")
    return not sign or is_file(word) or (
        name not in list_keys() and (os.path.isdir(word) or os.sep in name or word.endswith((".yaml", ".yml"))))


def flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as `{dotted key: value}`."""
    found = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            found |= flatten(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def build_config(sources: list[tuple[str, dict[str, Any]]]) -> Config:
    """Merge what `read_yaml` and `read_override` return, each with the name of where it comes from, over the schema.

    Raises:
        UserError: for an unknown key, a value of the wrong type, out of range or in contradiction.
    """
    config = merge_sources(sources)
    validate_config(config)
    return config


def merge_sources(sources: list[tuple[str, dict[str, Any]]]) -> Config:
    """The same without the rules of `validate_config`: each value has its key's type, and may be out of range."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    known, merged = list_keys(), OmegaConf.structured(Config)
    references: dict[str, tuple[str, Any]] = {}
    for origin, given in sources:
        for dotted, written in given.items():
            require_known(dotted, origin)
            value = read_value(written, known[dotted], origin, dotted)
            references.pop(dotted, None)
            if has_reference(written):
                references[dotted] = (origin, written)
            try:
                OmegaConf.update(merged, dotted, value)
            except OmegaConfBaseException as error:
                raise explain_reference(error, dotted, origin, written) from None
    # Only now, because a later file or the command line may change what a value refers to.
    for dotted, (origin, written) in references.items():
        try:
            value = OmegaConf.select(merged, dotted)
            if OmegaConf.is_config(value):
                OmegaConf.to_container(value, resolve=True)
        except OmegaConfBaseException as error:
            raise explain_reference(error, dotted, origin, written) from None
    return OmegaConf.to_object(merged)


def require_known(dotted: str, origin: str) -> None:
    known = list_keys()
    if dotted in known:
        return
    sections = {name.rpartition(".")[0] for name in known} - {""}
    if dotted in sections:
        raise UserError(f"{origin}: '{dotted}' is a section, not a value; set one of its keys, such as "
                        f"'{next(name for name in known if name.startswith(dotted + '.'))}'")
    raise UserError(f"{origin}: unknown key '{dotted}'; {suggest(dotted, list(known))}")


def explain_reference(error: Exception, dotted: str, origin: str, written: Any) -> UserError:
    """The error for a value that refers to what cannot be filled in."""
    reason = str(error).splitlines()[0]
    name = re.search("Interpolation key '(.*)' not found", reason)
    hint = f"; {suggest(name[1], list(list_keys()))}" if name else ""
    return UserError(f"{locate(origin, written)}: {dotted}={shorten(repr(to_plain(written)))} cannot be filled in "
                     f"({shorten(reason)}); name another key, or write '\\${{' for these characters themselves{hint}")


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
    refuse_spaces(words)
    files = [word for word in words if is_path(word)]
    overrides = [word for word in words if not is_path(word)]
    config = build_config([(name, read_yaml(find_config_file(name))) for name in files or [find_base_file(overrides)]]
                          + [("command line", read_override(word)) for word in overrides])
    if "--print-config" in flags:
        print(to_yaml(config), end="")
        sys.exit(0)
    return config


def refuse_spaces(words: list[str]) -> None:
    """Raise `UserError` where the shell has cut key=value at spaces: around the '=', or in a value without quotes."""
    for before, word, after in zip(words, [*words[1:], ""], [*words[2:], "", ""], strict=False):
        key, sign, value = before.partition("=")
        if key not in list_keys() or is_file(before):
            continue
        if not sign:
            value = word.removeprefix("=") or after or "VALUE"
            raise UserError(f"command line: '{key}' is a key; write {key}={value}, without spaces around '='")
        if not word or "=" in word or word in list_keys() or is_file(word) or word.endswith((".yaml", ".yml")):
            continue
        if not value:
            raise UserError(f"command line: '{key}=' is followed by a space; write {key}={word}, without spaces around "
                            "'='")
        raise UserError(f"command line: '{word}' is neither a file nor key=value; a value with spaces in it needs "
                        f"quotes: '{before} {word}'")


def find_base_file(overrides: list[str]) -> str:
    """The file to start from where none is named: that of the run to resume, else the quick start."""
    run = dict(word.split("=", 1) for word in overrides).get("resume", "none")
    kept = os.path.join(os.path.expanduser(run), "config.yaml")
    return kept if run not in ("none", "auto") and os.path.isfile(kept) else "configs/quickstart.yaml"


def read_override(word: str) -> dict[str, Any]:
    """One `key=value` of the command line, whose value is what was typed, in the form of `read_yaml`."""
    dotted, _, text = word.partition("=")
    item = list_keys().get(dotted)
    items = split_list(text) if item and get_origin(item.type) is list else None
    return {dotted: Scalar(text) if items is None else items}


def read_yaml(path: Path) -> dict[str, Any]:
    """What a YAML file holds, as it is written, by dotted key. Raises `UserError` naming the line that is wrong."""
    from shared.config.yaml_file import read_yaml_file  # here, because --help must not wait for PyYAML

    return read_yaml_file(path)


def to_yaml(config: Config) -> str:
    """The config as a file that reads as the same config."""
    return format_yaml(to_dict(config))


def format_yaml(values: dict[str, Any]) -> str:
    """Nested `values` of keys as a file that reads as the same."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(escape_references(values)))


def escape_references(value: Any) -> Any:
    """`value` with '${', which refers to nothing in a resolved config, written so that it is read as a text."""
    if isinstance(value, dict):
        return {name: escape_references(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [escape_references(inner) for inner in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def to_dict(config: Config) -> dict[str, Any]:
    """The config as nested plain dictionaries, for W&B and JSON."""
    return asdict(config)


def load_config(path: Path) -> Config:
    """A config that a run folder keeps. Raises `UserError`."""
    return build_config([(str(path), read_yaml(path))])


def read_kept_config(text: str, path: Path, words: list[str] | None = None) -> Config:
    """The config whose YAML `text` is kept at `path`, with key=value `words` over it. It is not asked whether paths
    exist here, and keys of an older version that the schema no longer has are left out.

    Raises:
        UserError: where a value has another type or is out of range.
    """
    from shared.config.yaml_file import read_yaml_text

    given, known = read_yaml_text(text, path), list_keys()
    config = merge_sources([(str(path), {dotted: given[dotted] for dotted in given if dotted in known}),
                            *(("command line", read_override(word)) for word in words or [])])
    validate_values(config)
    return config


def read_kept_values(path: Path) -> dict[str, Any]:
    """The values that a run folder's config names, by dotted key, without asking whether they would do here.

    A key of an older version, which the schema no longer has, keeps what is written.
    """
    given, known = read_yaml(path), list_keys()
    config = merge_sources([(str(path), {dotted: given[dotted] for dotted in given if dotted in known})])
    return {dotted: get_value(config, dotted) if dotted in known else to_plain(written)
            for dotted, written in given.items()}
