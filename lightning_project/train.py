"""Train an image classifier with PyTorch Lightning."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# This program runs the code beside it, even where the environment was installed from another clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shared.command import run
from shared.config import Config


def train(config: Config, extra_callbacks: Sequence[Any] = ()) -> dict[str, Any]:
    """Train, test the best epoch's weights and return what result.json holds."""
    from shared.pretrained import prepared

    config = prepared(config)
    # Imported here, so that a wrong config is told before PyTorch loads.
    import lightning as L

    from lightning_project.callbacks import build_callbacks, checked
    from lightning_project.classifier import Classifier
    from lightning_project.data import DataModule
    from lightning_project.evaluate import predict
    from lightning_project.models import build_model, load_weights, neutral_shapes, parameter_count
    from lightning_project.runtime import build_runtime, peak_memory_gib
    from shared.batches import TrainBatches
    from shared.datasets import load
    from shared.experiment import describe, starting_point
    from shared.recorder import Recorder
    from shared.runs import Run
    from shared.schedule import learning_rates, steps_per_epoch
    from shared.weights import read

    runtime = build_runtime(config)
    data = load(config)
    model = build_model(config, data)
    weights = starting_point(config, neutral_shapes(model), data.folders, data.classes, runtime.leader)
    load_weights(model, weights)
    model = runtime.prepare(model)

    run = Run.start_together(config, "lightning", runtime.leader, runtime.agree)
    facts = describe(run, data, weights, parameters=parameter_count(model), **runtime.facts)
    steps = steps_per_epoch(config, len(data.train))
    names = TrainBatches(config, data).names
    with Recorder(run, steps, learning_rates(config, steps), peak_memory_gib, names) as recorder:
        classifier = Classifier(config, model, len(data.classes), steps)
        loaders = DataModule(config, data, runtime)
        callbacks = [*build_callbacks(config, recorder, data.classes), *extra_callbacks]
        trainer = L.Trainer(max_epochs=config.train.epochs, callbacks=callbacks, **runtime.trainer)
        trainer.fit(classifier, loaders, ckpt_path=checked(run.last_checkpoint(), model), weights_only=True)

        model = build_model(config, data)  # anew, since a strategy may have taken the trained one apart
        load_weights(model, read(run.best_weights))
        val, test = predict(trainer, Classifier(config, model, len(data.classes), steps), loaders)
        return recorder.finish(facts["parameters"], val, test)


if __name__ == "__main__":
    run(train, "python lightning_project/train.py", __doc__)
