"""The file of a sweep: which config, in which siblings, how many trials, over which values of which keys."""

import itertools
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared.config import (
    Config,
    find_config_file,
    find_direction,
    flatten,
    read_yaml,
    require_support,
    to_dict,
    to_yaml,
)
from shared.config.reading import merge_sources, read_override
from shared.config.rules import validate_config, validate_values
from shared.config.values import Scalar, locate
from shared.errors import UserError
from shared.machine.console import say
from shared.machine.files import expand_home, write_whole
from shared.machine.interpreters import list_siblings
from shared.training.sweep.space import MEANS_OF_LOSS, Dimension, change_config, explain_unknown_part, read_space

MOST_COMBINATIONS = 1000  # of a larger space so many are drawn to be checked


@dataclass(frozen=True)
class Sweep:
    """What a sweep's file says. `config` is that of every trial but for the values that are searched; `trials` counts
    sets of values, each of which is trained in all `siblings`."""
    name: str
    config: Config
    siblings: tuple[str, ...]
    trials: int
    seed: int
    prune: bool
    prune_startup: int
    prune_warmup: int
    space: tuple[Dimension, ...]

    @property
    def folder(self) -> Path:
        return expand_home(self.config.output_dir) / self.name

    @property
    def metric(self) -> str:
        return self.config.train.monitor

    @property
    def direction(self) -> str:
        """Which values of the metric are better: min or max."""
        return find_direction(self.config)

    def build_trial(self, number: int, words: dict[str, str]) -> Config:
        """The config of trial `number` with the values `{dotted key: as it is written}`. Raises `UserError`."""
        config = change_config(self.config, words)
        config = replace(config, experiment=f"{self.name}_{number:03d}", output_dir=str(self.folder))
        validate_config(config)
        return config


def make_folder(sweep: Sweep) -> Path:
    """Make the sweep's folder, write config.yaml into it, which its trainings start from, and return that file's path.

    Raises:
        UserError: where it cannot be made or written to.
    """
    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output_dir: {sweep.folder} cannot be made ({error.strerror}); choose another") from None
    path = sweep.folder / "config.yaml"
    write_whole(path, lambda file: file.write_text(to_yaml(sweep.config), encoding="utf-8"), apart=True)
    return path


# What the file has beside base, siblings, fixed and space: the type of each, its default and its smallest value.
NUMBERS = {"trials": (20, 1), "seed": (0, 0), "prune_startup": (5, 0), "prune_warmup": (1, 0)}
PARTS = ("name", "base", "siblings", *NUMBERS, "prune", "fixed", "space")


def read_sweep(name: str, words: list[str] | None = None, siblings: list[str] | None = None,
               trials: int | None = None) -> Sweep:
    """The sweep in the file `name`, with key=value `words` over its fixed keys, and with the other arguments in place
    of what the file says.

    Raises:
        UserError: for anything that the schema would refuse, for all values of the space.
    """
    path = find_config_file(name)
    given = read_yaml(path)
    parts: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {"fixed": {}, "space": {}}
    for dotted, written in given.items():
        head, _, rest = dotted.partition(".")
        if head in nested and rest:
            nested[head][rest] = written
        elif dotted in PARTS:
            parts[dotted] = written
        else:
            raise explain_unknown_part(dotted, PARTS, locate(str(path), written))
    files = read_names(parts.get("base", Scalar("configs/quickstart.yaml")))
    config = merge_sources([*((file, read_yaml(find_config_file(file))) for file in files),
                            (str(path), nested["fixed"]),
                            *(("command line", read_override(word)) for word in words or [])])
    validate_values(config)  # the rules between keys are for the trials, whose values may be what they ask for
    found = Sweep(
        name=getattr(parts.get("name"), "text", path.stem), config=config,
        siblings=choose_siblings(siblings or read_names(parts.get("siblings", []))),
        prune=read_switch(parts, "prune", True, path), space=read_space(nested["space"], str(path)),
        **{part: read_number(parts, part, path) for part in NUMBERS})
    found = replace(found, trials=trials or found.trials)
    if not found.name or "/" in found.name or found.name in (".", ".."):
        raise UserError(f"{path}: name='{found.name}' becomes a folder's name; leave '/' out of it")
    check_metric(found, str(path))
    check_space(found, str(path))
    return found


def read_names(written: Any) -> list[str]:
    return [one.text for one in (written if isinstance(written, list) else [written])]


def read_number(parts: dict[str, Any], name: str, path: Path) -> int:
    default, low = NUMBERS[name]
    if name not in parts:
        return default
    text = getattr(parts[name], "text", "")
    if not (text.isascii() and text.isdigit() and int(text) >= low):
        raise UserError(f"{locate(str(path), parts[name])}: {name} is no whole number of at least {low}")
    return int(text)


def read_switch(parts: dict[str, Any], name: str, default: bool, path: Path) -> bool:
    text = getattr(parts.get(name, Scalar(str(default).lower())), "text", "")
    if text not in ("true", "false"):
        raise UserError(f"{locate(str(path), parts[name])}: {name} is true or false")
    return text == "true"


def choose_siblings(named: list[str]) -> tuple[str, ...]:
    """The siblings that are `named`, by default all that are here. Raises `UserError` for another one."""
    here = list_siblings()
    for name in named:
        if name not in here:
            raise UserError(f"siblings: '{name}' is not here; there is {' and '.join(here)}")
    return tuple(name for name in here if not named or name in named)


def check_metric(sweep: Sweep, origin: str) -> None:
    """Raise `UserError` where trials could not be told apart by the monitored metric."""
    if not sweep.metric.startswith("val/"):
        raise UserError(f"{origin}: train.monitor={sweep.metric} is what the search improves; choose a val/ metric")
    searched = [one.key for one in sweep.space if one.key in MEANS_OF_LOSS]
    if sweep.metric == "val/loss" and searched:
        raise UserError(f"{origin}: space: {searched[0]} changes what train.monitor=val/loss measures, so that its "
                        "values cannot be compared; fix train.monitor: val/accuracy")


def check_space(sweep: Sweep, origin: str) -> None:
    """Try every value alone, and combinations of the choices and bounds.

    Raises:
        UserError: where a value is out of its key's range, or no combination is a config.
    """
    for dimension in sweep.space:
        for word in dimension.list_ends():
            try:
                validate_values(change_config(sweep.config, {dimension.key: word}))
            except UserError as error:
                raise UserError(f"{origin}: space: {error}") from None
    faults, combinations = [], list_combinations(sweep.space)
    for words in combinations:
        try:
            config = sweep.build_trial(0, words)
            for sibling in sweep.siblings:
                require_support(config, sibling)
        except UserError as error:
            faults.append(str(error))
    if len(faults) == len(combinations):
        raise UserError(f"{origin}: {faults[0]}")
    if faults:
        say(f"{len(faults)} of {len(combinations)} combinations of the values are no config, and such trials will "
            f"count as failed; the first: {faults[0]}")


def list_combinations(space: tuple[Dimension, ...]) -> list[dict[str, str]]:
    """All combinations of choices and bounds, or as many of them as are checked."""
    ends = [dimension.list_ends() for dimension in space]
    total = 1
    for one in ends:
        total *= len(one)
    draw = random.Random(0)
    chosen = itertools.product(*ends) if total <= MOST_COMBINATIONS else (
        tuple(draw.choice(one) for one in ends) for _ in range(MOST_COMBINATIONS))
    return [dict(zip((dimension.key for dimension in space), words, strict=True)) for words in chosen]


def describe_sweep(sweep: Sweep) -> dict[str, Any]:
    """What must not change between two starts of a sweep, since its trials could not be compared otherwise."""
    kept = {key: value for key, value in flatten(to_dict(sweep.config)).items()
            if key not in ("output_dir", "dataset.root", "experiment", "resume")
            and not key.startswith(("hardware.", "tracking."))}
    return {**kept, **{f"space {one.key}": one.describe() for one in sweep.space}}
