"""This sibling's half of `python -m shared.parity`, which records its data, models, optimizers and `train` at work.

`shared.parity.request.KINDS` says what each function records.
"""

import keras
import numpy as np
import tensorflow as tf
from keras.callbacks import Callback

from keras_project.checkpoints import to_numpy
from keras_project.classifier import compile_classifier
from keras_project.data import build_eval_dataset, build_train_dataset, read_dataset
from keras_project.executor import executor
from keras_project.models import build_model, find_entry, load_weights, neutral_state, neutral_weights
from keras_project.optim import build_optimizer
from keras_project.runtime import build_runtime
from keras_project.train import train
from keras_project.views import average_views
from shared.config import Config
from shared.data.batches import TrainBatches, count_steps
from shared.data.cache import cache_images
from shared.data.loading import load_data
from shared.parity.request import (
    MARKS,
    VIEWS,
    Arrays,
    answer_request,
    hash_items,
    perturb_vectors,
    record_splits,
    thin_out,
)
from shared.training.imbalance import weigh_classes
from shared.weights.start import choose_starting_weights


def record_raw(config: Config) -> Arrays:
    data = load_data(config)
    dataset = read_dataset(TrainBatches(config, data), build_runtime(config))
    batches = [{"index": batch["index"], "target": batch["target"], "bytes": hash_items(batch["image"])}
               for batch in dataset.as_numpy_iterator()]
    return record_splits(data) | {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def record_pixels(config: Config) -> Arrays:
    runtime, data = build_runtime(config), cache_images(config, load_data(config))
    steps = count_steps(config, len(data.train))
    dataset = build_train_dataset(config, data, runtime)
    found = {}

    def keep(name: str, batches: tf.data.Dataset) -> None:
        images, targets, *_ = zip(*batches.as_numpy_iterator(), strict=True)
        found[f"{name} images"], found[f"{name} targets"] = np.concatenate(images), np.concatenate(targets)

    for epoch in range(config.train.epochs):
        keep(f"train epoch {epoch + 1}", dataset.skip(epoch * steps).take(steps))
    keep("val", build_eval_dataset(config, data, data.val, runtime))
    keep("test", build_eval_dataset(config, data, data.test, runtime))
    return found


def record_start(config: Config) -> Arrays:
    build_runtime(config)
    data = load_data(config)
    model = build_model(config, data)
    drawn, _ = choose_starting_weights(config, find_entry(config.model.name), neutral_weights(model), data)
    load_weights(model, drawn)
    return {f"drawn {name}": tensor for name, tensor in drawn.items()} \
        | {f"held {name}": tensor for name, tensor in neutral_weights(model).items()}


def record_forward(config: Config) -> Arrays:
    runtime, data = build_runtime(config), load_data(config)
    model = build_model(config, data)
    weights, _ = choose_starting_weights(config, find_entry(config.model.name), neutral_weights(model), data)
    load_weights(model, perturb_vectors(weights))
    images, target = next(build_train_dataset(config, data, runtime).as_numpy_iterator())
    class_weights = weigh_classes(data.train.labels, data.classes, config.train.class_weights)
    compile_classifier(config, model, 1, class_weights)
    evaluation = model(images, training=False)
    views = average_views(model, VIEWS)(images, training=False)
    training, loss, found = executor.differentiate_loss(model, images, target)
    gradients = {variable.path: to_numpy(gradient)
                 for variable, gradient in zip(model.trainable_variables, found, strict=True)}
    return {"evaluation logits": to_numpy(evaluation), "views logits": to_numpy(views),
            "training logits": to_numpy(training), "loss": to_numpy(loss)} \
        | {f"gradient {name}": thin_out(tensor.to_neutral(gradients[tensor.variable.path]))
           for name, tensor in neutral_state(model).items() if tensor.variable.trainable}


def record_rates(config: Config) -> Arrays:
    build_runtime(config)
    data = load_data(config)
    steps = count_steps(config, len(data.train))
    optimizer = build_optimizer(config, steps)
    rates = []
    for step in range(config.train.epochs * steps):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    return {"rates": np.array(rates)}


class Snapshots(Callback):
    """Keeps the weights after the steps in MARKS, and the test logits at the end."""

    def __init__(self, test: tf.data.Dataset):
        super().__init__()
        self.test, self.arrays = test, {}

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        step = int(self.model.optimizer.iterations)
        if step in MARKS:
            self.arrays |= {f"step {step} {name}": tensor for name, tensor in neutral_weights(self.model).items()}

    def on_train_end(self, logs: dict | None = None) -> None:
        self.arrays["test logits"] = self.model.predict(self.test, verbose=0)


def record_fit(config: Config) -> Arrays:
    data = load_data(config)
    snapshots = Snapshots(build_eval_dataset(config, data, data.test, build_runtime(config)))
    train(config, [snapshots])
    keras.backend.clear_session()  # otherwise the graph of each fit stays in memory
    return snapshots.arrays


if __name__ == "__main__":
    answer_request({"raw": record_raw, "pixels": record_pixels, "start": record_start, "forward": record_forward,
                    "rates": record_rates, "fit": record_fit})
