"""Train an image classifier with Keras."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# This program runs the code beside it, even where the environment was installed from another clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shared.config import Config
from shared.config.command import run_command


def train(config: Config, extra_callbacks: Sequence[Any] = ()) -> dict[str, Any]:
    """Train, test the best epoch's weights and return what result.json holds."""
    from shared.weights.pretrained import apply_checkpoint_preprocessing, apply_library_preprocessing

    config = apply_checkpoint_preprocessing(config)
    # Imported here, so that a wrong config is told before TensorFlow loads.
    from keras_project.callbacks import build_callbacks
    from keras_project.checkpoints import fit_from_step, load_checkpoint
    from keras_project.classifier import compile_classifier, score_predictions
    from keras_project.data import build_eval_dataset, build_train_dataset
    from keras_project.evaluate import predict_splits
    from keras_project.models import build_model, find_entry
    from keras_project.models.neutral import load_weights, neutral_weights, untrained_names
    from keras_project.runtime import build_runtime, measure_peak_memory
    from shared.data.batches import TrainBatches, count_steps
    from shared.data.cache import cache_images
    from shared.data.loading import load_data
    from shared.runs.folder import RunFolder
    from shared.training.describe import describe_run
    from shared.training.imbalance import weigh_classes
    from shared.training.recorder import Recorder
    from shared.training.schedule import tabulate_rates
    from shared.weights.file import read_weights
    from shared.weights.start import choose_starting_point

    entry = find_entry(config.model.name)
    config = apply_library_preprocessing(config, entry)
    runtime = build_runtime(config)
    data = cache_images(config, load_data(config))
    with runtime.strategy.scope():
        model = runtime.prepare_model(build_model(config, data))
    untrained = untrained_names(model)
    weights = choose_starting_point(config, entry, neutral_weights(model), data, runtime.leader, untrained)
    load_weights(model, weights)

    run = RunFolder.start_together(config, "keras", runtime.leader, runtime.broadcast_text)
    if run.is_done:  # resumed with fewer epochs than it has had, which a line has said
        return run.read_result()
    facts = describe_run(run, data, entry, weights, untrained, **runtime.facts)
    steps = count_steps(config, len(data.train))
    name_images = TrainBatches(config, data).name_images
    with Recorder(run, steps, tabulate_rates(config, steps), measure_peak_memory, name_images, data.test) as recorder:
        callbacks = [*build_callbacks(config, recorder, data.classes), *extra_callbacks]
        with runtime.strategy.scope():
            compile_classifier(config, model, steps, weigh_classes(data.train.labels, data.classes,
                                                                   config.train.class_weights))
            first_step = load_checkpoint(run.find_last_checkpoint(), model, callbacks)
        fit_from_step(model, lambda step: build_train_dataset(config, data, runtime, step), first_step, steps, config,
                      callbacks=callbacks, validation_data=build_eval_dataset(config, data, data.val, runtime))

        if not runtime.leader:
            return {}
        if runtime.processes > 1:  # the other workers have left
            model = build_model(config, data)
        load_weights(model, read_weights(run.best_weights))
        val, test = predict_splits(model, config, data, runtime)
        scores = [score_predictions(config, len(data.classes), predictions) for predictions in (val, test)]
        return recorder.finish(facts["parameters"], val, test, scores)


if __name__ == "__main__":
    run_command(train, "keras", "train.py", __doc__)
