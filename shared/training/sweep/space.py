"""The keys that a sweep searches, and what each may be."""

import copy
from dataclasses import dataclass
from functools import reduce
from typing import Any

from shared.config import Config, list_keys, suggest
from shared.config.reading import read_override, require_known
from shared.config.schema import name_type
from shared.config.values import Scalar, has_reference, locate, read_value
from shared.errors import UserError

BOUNDS = ("low", "high", "log", "step")
# The sweep sets these itself, or could not compare trials that differ in them.
NOT_SEARCHED = ("experiment", "output_dir", "resume", "train.monitor", "train.monitor_mode")
# What makes a validation loss another quantity.
MEANS_OF_LOSS = ("train.loss", "train.focal_gamma", "train.class_weights")


@dataclass(frozen=True)
class Dimension:
    """A key and what it may be: one of `choices`, which are written as on the command line, or a number from `low` to
    `high`, in steps or evenly in its logarithm where that is said. Numbers have the type that the schema gives the key.
    """
    key: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        return list_keys()[self.key].type is int

    def describe(self) -> str:
        if self.choices:
            return ", ".join(self.choices)
        return f"{self.low:g} to {self.high:g}{', log' * self.log}" + (f", step {self.step:g}" if self.step else "")

    def list_ends(self) -> list[str]:
        """All choices, or both bounds, as they are written."""
        return list(self.choices) or [format_value(self.low), format_value(self.high)]


def format_value(value: Any) -> str:
    """`value` as the command line has it."""
    if isinstance(value, list):
        return "[" + ", ".join(f'"{item}"' if "," in str(item) else str(item) for item in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def shorten_value(value: Any) -> str:
    """`value` for a reader, with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else format_value(value)


def read_space(given: dict[str, Any], origin: str) -> tuple[Dimension, ...]:
    """The dimensions in what a file holds, `{dotted key of the space: Scalar or list}`.

    Raises:
        UserError: for an unknown key, or where it is not said what a key may be.
    """
    found: dict[str, Dimension | None] = {}  # in the order of the file
    bounds: dict[str, dict[str, Any]] = {}
    for dotted, written in given.items():
        key, _, bound = dotted.rpartition(".")
        if dotted not in list_keys() and bound in BOUNDS and key in list_keys():
            bounds.setdefault(key, {})[bound] = written
            found.setdefault(key)
            continue
        require_known(dotted, f"{locate(origin, written)}: space")
        if not isinstance(written, list) or not written:
            raise UserError(f"{locate(origin, written)}: space: {dotted} needs a list of values, or low and high; a "
                            "single value belongs to 'fixed'")
        values = [format_value(read_written(one, dotted, origin)) for one in written]
        if len(set(values)) < len(values):
            raise UserError(f"{locate(origin, written)}: space: {dotted} names a value twice")
        found[dotted] = Dimension(dotted, tuple(values))
    for key, written in bounds.items():
        found[key] = read_range(key, written, origin)
    for key in found:
        if key in NOT_SEARCHED:
            raise UserError(f"{origin}: space: '{key}' cannot be searched, since trials that differ in it cannot be "
                            "compared or resumed; leave it out")
    if not found:
        raise UserError(f"{origin}: the space is empty; name keys under 'space:', such as "
                        "'optimizer.lr: {low: 0.001, high: 0.1, log: true}'")
    return tuple(found.values())


def read_range(key: str, written: dict[str, Any], origin: str) -> Dimension:
    """The dimension of a key with bounds. Raises `UserError`."""
    place = locate(origin, next(iter(written.values())))
    item = list_keys()[key]
    if item.type not in (int, float):
        raise UserError(f"{place}: space: {key} is of type {name_type(item)} and has no low and high; give a list of "
                        "its values")
    if not {"low", "high"} <= written.keys():
        raise UserError(f"{place}: space: {key} needs both low and high")
    values = {name: read_written(one, key, origin) for name, one in written.items() if name != "log"}
    word = getattr(written.get("log", Scalar("false")), "text", "")
    if word not in ("true", "false"):
        raise UserError(f"{place}: space: {key}: log is true or false")
    found = Dimension(key, log=word == "true", **values)
    for fault, wrong in (("low has to be below high", not found.low < found.high),
                         ("log needs low above 0", found.log and not found.low > 0),
                         ("step has to be above 0", found.step is not None and not found.step > 0),
                         ("log and step exclude each other", found.log and found.step is not None)):
        if wrong:
            raise UserError(f"{place}: space: {key}: {fault}")
    return found


def read_written(written: Any, key: str, origin: str) -> Any:
    """What a file has for a `key`, as a value of its type. Raises `UserError`."""
    if has_reference(written):
        raise UserError(f"{locate(origin, written)}: space: {key} refers to another key, which a sweep cannot follow; "
                        "write values")
    return read_value(written, list_keys()[key], origin, f"space.{key}")


def change_config(config: Config, words: dict[str, str]) -> Config:
    """A copy of `config` with other values, `{dotted key: as it is written on the command line}`."""
    changed = copy.deepcopy(config)
    for dotted, word in words.items():
        written = read_override(f"{dotted}={word}")[dotted]
        *sections, name = dotted.split(".")
        setattr(reduce(getattr, sections, changed), name, read_value(written, list_keys()[dotted], "sweep", dotted))
    return changed


def explain_unknown_part(name: str, valid: tuple[str, ...], origin: str) -> UserError:
    if name in list_keys():
        return UserError(f"{origin}: '{name}' is a key of the experiment; write it under 'fixed:', or under 'space:' "
                         "with what it may be")
    return UserError(f"{origin}: unknown '{name}'; a sweep's file has {', '.join(valid)}; {suggest(name, valid)}")
