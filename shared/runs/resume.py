"""What may differ when a run is resumed, and what would make it another experiment."""

from pathlib import Path
from typing import Any

from shared.config import Config, flatten, read_kept_values, to_dict

# Keys that a resumed run may change: how long it trains, on which machine, and where it reports to.
CHANGEABLE = ("experiment", "output_dir", "resume", "dataset.root", "dataset.cache", "dataset.on_bad_image",
              "model.gradient_checkpointing", "train.epochs", "train.accumulate", "train.eval_batch_size",
              "train.checkpoint_every_steps")
CHANGEABLE_SECTIONS = ("hardware.", "tracking.", "debug.")


def find_changed_keys(folder: Path, config: Config) -> list[str]:
    """The keys that have another value than in the config of the run in `folder`, but must not have."""
    old, new = read_kept_values(folder / "config.yaml"), flatten(to_dict(config))
    return [name for name in new if name in old and old[name] != new[name]
            and name not in CHANGEABLE and not name.startswith(CHANGEABLE_SECTIONS)]


def extract_experiment(facts: dict[str, Any]) -> dict[str, Any]:
    """The `facts` of run.json that must not differ when a run is resumed, named as an error message names them.

    The test images are not among them: a run that stopped because it could not read one is to go on once the file is
    repaired, removed or skipped.
    """
    names = ("global_batch", "steps_per_epoch", "classes", "precision")
    same = {name: facts[name] for name in names if name in facts}
    for what, parts in (("sizes", ("train", "val")), ("fingerprints", ("split", "order"))):
        same |= {f"{part} {what.removesuffix('s')}": facts[what][part] for part in parts if part in facts.get(what, {})}
    return same
