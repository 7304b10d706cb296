"""Train an image classifier with PyTorch Lightning."""

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
    # Imported here, so that a wrong config is told before PyTorch loads.
    import lightning as L

    from lightning_project.callbacks import build_callbacks
    from lightning_project.checkpoints import validate_checkpoint
    from lightning_project.classifier import Classifier, score_predictions
    from lightning_project.data import DataModule
    from lightning_project.evaluate import predict_splits
    from lightning_project.logger import RecorderLogger
    from lightning_project.models import build_model, find_entry
    from lightning_project.models.neutral import load_weights, neutral_weights, untrained_names
    from lightning_project.runtime import build_runtime, measure_peak_memory
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
    model = build_model(config, data)
    untrained = untrained_names(model)
    weights = choose_starting_point(config, entry, neutral_weights(model), data, runtime.leader, untrained)
    load_weights(model, weights)
    model = runtime.prepare_model(model)

    run = RunFolder.start_together(config, "lightning", runtime.leader, runtime.broadcast_text)
    if run.is_done:  # resumed with fewer epochs than it has had, which a line has said
        return run.read_result()
    facts = describe_run(run, data, entry, weights, untrained, **runtime.facts)
    steps = count_steps(config, len(data.train))
    name_images = TrainBatches(config, data).name_images
    with Recorder(run, steps, tabulate_rates(config, steps), measure_peak_memory, name_images, data.test) as recorder:
        weights_of_classes = weigh_classes(data.train.labels, data.classes, config.train.class_weights)
        classifier = Classifier(config, model, len(data.classes), steps, weights_of_classes)
        loaders = DataModule(config, data, runtime)
        callbacks = [*build_callbacks(config, recorder, data.classes), *extra_callbacks]
        trainer = L.Trainer(max_epochs=config.train.epochs, callbacks=callbacks, logger=RecorderLogger(recorder),
                            **runtime.trainer)
        checkpoint = validate_checkpoint(run.find_last_checkpoint(), model)
        trainer.fit(classifier, loaders, ckpt_path=checkpoint, weights_only=True)

        model = build_model(config, data)  # anew, since a strategy may have taken the trained one apart
        load_weights(model, read_weights(run.best_weights))
        val, test = predict_splits(trainer, Classifier(config, model, len(data.classes), steps), loaders)
        scores = [score_predictions(config, len(data.classes), predictions) for predictions in (val, test)]
        return recorder.finish(facts["parameters"], val, test, scores)


if __name__ == "__main__":
    run_command(train, "lightning", "train.py", __doc__)
