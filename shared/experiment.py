"""What both entry points do that needs no framework: name the starting point, describe the run, report scores."""

from pathlib import Path
from typing import Any

import numpy as np

from shared.config import Config
from shared.datasets import Data
from shared.errors import UserError
from shared.metrics import split_scores
from shared.models import head_module
from shared.recorder import say
from shared.runs import Run, last_checkpoint, write_arrays
from shared.sampling import epoch_order, fingerprint
from shared.schedule import steps_per_epoch
from shared.weights import (
    Shapes,
    Weights,
    decays,
    initial_weights,
    read,
    refuse_misfit,
    starting_weights,
    trained_on,
    weight_file,
    weights_fingerprint,
)


def starting_point(config: Config, shapes: Shapes, folders: tuple[str, ...] = (), classes: tuple[str, ...] = (),
                   leader: bool = True) -> Weights:
    """Where training starts from, in this order: the run that `resume` names, whose checkpoint later overwrites what
    is returned here; `init_from`; a published checkpoint, `model.pretrained`; weights drawn from the seed."""
    if config.resume not in ("none", "auto") and last_checkpoint(Path(config.resume).expanduser()):
        return initial_weights(shapes, config.seed)  # and what the run began with may be gone
    weights, source = starting_weights(config, shapes, folders, classes)
    say(f"starting from {source}{', unless a run is resumed' if config.resume == 'auto' else ''}", leader=leader)
    return weights


def describe(run: Run, data: Data, weights: Weights, parameters: int, **facts: Any) -> dict[str, Any]:
    """Write run.json and print what a reader would ask first. `facts` are device, precision and tf32."""
    config = run.config
    steps = steps_per_epoch(config, len(data.train))
    sizes = {"train": len(data.train), "val": len(data.val), "test": len(data.test)}
    order = fingerprint(epoch_order(len(data.train), config.seed, 0))
    decayed = sum(tensor.size for name, tensor in weights.items()
                  if not name.endswith(("running_mean", "running_var"))
                  and decays(tensor.shape, config.optimizer.decay_norm_and_bias))
    content = {"parameters": parameters, "steps_per_epoch": steps, "sizes": sizes, "classes": list(data.classes),
               "skipped_images": len(data.skipped),
               "fingerprints": {**data.fingerprints(), "order": order,
                                "initial_weights": weights_fingerprint(weights)}, **facts}
    run.describe(**content)
    say(f"{data.name}: {sizes['train']:,} training, {sizes['val']:,} validation and {sizes['test']:,} test images of "
        f"{data.image_size}x{data.image_size}x{data.channels} in {len(data.classes)} classes; {steps:,} steps of "
        f"{config.train.batch_size} in each of {config.train.epochs} epochs", leader=run.leader)
    say(f"{config.model.name}: {parameters:,} parameters, {decayed:,} of them decay", leader=run.leader)
    if config.model.freeze == "backbone":
        until = f"in the first {config.train.unfreeze_epoch} of {config.train.epochs} epochs" \
            if 0 < config.train.unfreeze_epoch < config.train.epochs else "in every epoch"
        say(f"nothing but {head_module(config.model.name)} trains {until}", leader=run.leader)
    say(f"run folder: {run.folder}{' (resumed)' if run.resumed else ''}", leader=run.leader)
    return content


def weights_of(source: str, shapes: Shapes, classes: tuple[str, ...]) -> Weights:
    """The weights to evaluate. Raises `UserError` where they belong to another model or to other classes."""
    path = weight_file(source)
    known = trained_on(path)
    if known not in ((), classes):
        raise UserError(f"{path} was trained on the classes {', '.join(known[:5])} ..., the data set has "
                        f"{', '.join(classes[:5])} ...; set dataset.name and dataset.root to what it was trained on")
    weights = read(path)
    refuse_misfit(weights, shapes, path)
    return weights


def report(framework: str, source: str, val: dict[str, np.ndarray], test: dict[str, np.ndarray]) -> dict[str, Any]:
    """Print and return the scores; write the test predictions beside the weights they came from."""
    path = weight_file(source)
    file = path.parent / f"predictions_{framework}.npz"
    write_arrays(file, **test)
    result = split_scores(val, test)
    print("  ".join(f"{name} {value:.4f}" for name, value in result.items())
          + f"  ({len(test['label']):,} test images, by {framework})\npredictions: {file}")
    return {"framework": framework, "predictions": str(file), **result}
