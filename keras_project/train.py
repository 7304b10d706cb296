"""Train an image classifier with Keras."""

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
    # Imported here, so that a wrong config is told before TensorFlow loads.
    from keras_project.callbacks import build_callbacks, fit, resume
    from keras_project.classifier import compile_classifier
    from keras_project.data import eval_dataset, train_dataset
    from keras_project.evaluate import predict
    from keras_project.models import build_model, load_weights, neutral_shapes, parameter_count
    from keras_project.runtime import build_runtime, peak_memory_gib
    from shared.batches import TrainBatches
    from shared.datasets import load
    from shared.experiment import describe, starting_point
    from shared.recorder import Recorder
    from shared.runs import Run
    from shared.schedule import learning_rates, steps_per_epoch
    from shared.weights import read

    runtime = build_runtime(config)
    data = load(config)
    with runtime.strategy.scope():
        model = runtime.prepare(build_model(config, data))
    weights = starting_point(config, neutral_shapes(model), data.folders, data.classes, runtime.leader)
    load_weights(model, weights)

    run = Run.start_together(config, "keras", runtime.leader, runtime.agree)
    facts = describe(run, data, weights, parameters=parameter_count(model), **runtime.facts)
    steps = steps_per_epoch(config, len(data.train))
    names = TrainBatches(config, data).names
    with Recorder(run, steps, learning_rates(config, steps), peak_memory_gib, names) as recorder:
        callbacks = [*build_callbacks(config, recorder, data.classes), *extra_callbacks]
        with runtime.strategy.scope():
            compile_classifier(config, model, steps)
            first_step = resume(run.last_checkpoint(), model, callbacks)
        fit(model, lambda step: train_dataset(config, data, runtime, step), first_step, steps, config,
            callbacks=callbacks, validation_data=eval_dataset(config, data, data.val, runtime))

        if not runtime.leader:
            return {}
        if runtime.processes > 1:  # the other workers have left
            model = build_model(config, data)
        load_weights(model, read(run.best_weights))
        val, test = predict(model, config, data, runtime)
        return recorder.finish(facts["parameters"], val, test)


if __name__ == "__main__":
    run(train, "python keras_project/train.py", __doc__)
