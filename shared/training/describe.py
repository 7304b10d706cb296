"""What is recorded and printed when a run begins."""

from collections.abc import Collection
from typing import Any

from shared.data.batches import count_steps
from shared.data.loading import Data
from shared.data.sampling import fingerprint, order_epoch, order_epoch_balanced
from shared.machine.console import say
from shared.machine.environment import AT_START
from shared.models import ModelEntry
from shared.runs.folder import RunFolder
from shared.training.decay import is_decayed
from shared.weights.file import Weights, fingerprint_weights


def describe_run(run: RunFolder, data: Data, entry: ModelEntry, weights: Weights, untrained: Collection[str],
                 **facts: Any) -> dict[str, Any]:
    """Write run.json, print what a reader would ask first, and return the facts of run.json.

    `weights` are those to start from, `untrained` the names of those that the model does not train, `facts` are what
    only the framework knows: device, precision and tf32.

    Raises:
        UserError: where a resumed run would go on as another experiment than it began as.
    """
    config = run.config
    steps = count_steps(config, len(data.train))
    sizes = {"train": len(data.train), "val": len(data.val), "test": len(data.test)}
    order = order_epoch_balanced(data.train.labels, config.seed, 0) if config.dataset.balance == "oversample" \
        else order_epoch(len(data.train), config.seed, 0)
    trained = {name: tensor for name, tensor in weights.items() if name not in untrained}
    parameters = sum(tensor.size for tensor in trained.values())
    decayed = sum(tensor.size for name, tensor in trained.items()
                  if is_decayed(name, tensor.shape, config.optimizer.decay_norm_and_bias))
    content = {"parameters": parameters, "steps_per_epoch": steps, "sizes": sizes, "classes": list(data.classes),
               "skipped_images": len(data.skipped), "remarks": list(data.remarks), "environment": AT_START,
               "fingerprints": {**data.fingerprints(), "order": fingerprint(order),
                                "initial_weights": fingerprint_weights(weights)}, **facts}
    run.write_record(**content)
    say(f"{data.name}: {sizes['train']:,} training, {sizes['val']:,} validation and {sizes['test']:,} test images of "
        f"{data.image_size}x{data.image_size}x{data.channels} in {len(data.classes)} classes; {steps:,} steps of "
        f"{config.train.batch_size} in each of {config.train.epochs} epochs", leader=run.leader)
    data.say_remarks(run.leader)
    say(f"{config.model.name}: {parameters:,} parameters, {decayed:,} of them decay", leader=run.leader)
    if config.model.freeze == "backbone":
        until = f"in the first {config.train.unfreeze_epoch} of {config.train.epochs} epochs" \
            if 0 < config.train.unfreeze_epoch < config.train.epochs else "in every epoch"
        say(f"nothing but {', '.join(entry.heads)} trains {until}", leader=run.leader)
    say(f"run folder: {run.folder}{' (resumed)' if run.resumed else ''}", leader=run.leader)
    return content
