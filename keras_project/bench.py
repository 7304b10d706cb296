"""This sibling's half of `shared.bench`: python -m keras_project.bench CONFIG OUT WHAT COUNT

WHAT is rounds, of that COUNT; bare or bare_per_core, COUNT steps; input or stock_input, COUNT seconds; training or
stock_training, COUNT epochs, which the config says too.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from shared.bench.measure import time_epochs
from shared.config import Config, load_config
from shared.machine import hardware


def measure_bare_speed(config: Config, steps: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Images per second of training `steps` times on one batch in memory, without `fit`, data or callbacks; the
    seconds are those of `clock`."""
    import tensorflow as tf

    from keras_project.classifier import build_loss
    from keras_project.data import build_train_dataset
    from keras_project.executor import executor, require_tensorflow
    from keras_project.models import build_model
    from keras_project.optim import build_optimizer
    from keras_project.runtime import build_runtime
    from shared.data.loading import load_data

    require_tensorflow("the bare training step of shared.bench")
    runtime = build_runtime(config)
    data = load_data(config)
    images, target = next(iter(build_train_dataset(config, data, runtime)))
    model = runtime.prepare_model(build_model(config, data))
    optimizer = build_optimizer(config, steps)
    optimizer.build(model.trainable_variables)
    compute_loss = build_loss(config)
    scaled = runtime.facts["precision"] == "fp16"
    if scaled:
        optimizer = executor.LossScale(optimizer)

    @tf.function(jit_compile=config.hardware.compile)
    def train_step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = compute_loss(target, model(images, training=True))
            objective = optimizer.scale_loss(loss) if scaled else loss
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(objective, [variable.value for variable in variables]), variables)
        return loss

    train_step().numpy()  # for warm-up
    started = clock()
    for _ in range(steps):
        train_step().numpy()
    return steps * len(images) / (clock() - started)


def measure_bare(config: Config, out: Path, steps: int) -> None:
    """Write the speed of bare steps, in images per second, and the peak memory of this process to `out`."""
    from keras_project.runtime import measure_peak_memory

    found = {"bare": measure_bare_speed(config, steps), "peak_memory_gib": measure_peak_memory()}
    out.write_text(json.dumps(found), encoding="utf-8")


def measure_bare_per_core(config: Config, out: Path, steps: int) -> None:
    """Write the speed of bare steps, in images per second of CPU time, to `out`."""
    out.write_text(json.dumps({"per_core": measure_bare_speed(config, steps, time.process_time)}), encoding="utf-8")


def measure_rounds(config: Config, out: Path, rounds: int) -> None:
    """Write the speed of `train` and of as many bare steps, in images per second, of each round to `out`."""
    from keras_project.train import train

    measured = []
    for _ in range(rounds):
        result = train(config)
        steps = round(result["perf/epoch_seconds"] * result["perf/images_per_second"] / config.train.batch_size)
        measured.append({"train": result["perf/images_per_second"], "bare": measure_bare_speed(config, steps)})
    out.write_text(json.dumps(measured), encoding="utf-8")


def measure_training(config: Config, out: Path, epochs: int) -> None:
    """Write the seconds of the first and of later epochs of `train`, their steps and peak memory to `out`."""
    from keras_project.train import train

    result = train(config)
    seconds = result["perf/epoch_seconds"]
    write_epochs(out, [result["perf/first_epoch_seconds"], seconds],
                 round(seconds * result["perf/images_per_second"] / config.train.batch_size))


def measure_stock_training(config: Config, out: Path, epochs: int) -> None:
    """The same of Keras alone: `fit` with its own augmentation and optimizer. The network is this sibling's, since
    Keras has no ResNet-18."""
    import keras
    import tensorflow as tf
    from keras import layers

    from keras_project.models import build_model
    from keras_project.runtime import POLICY
    from shared.data.loading import load_data

    data = load_data(config)
    augment = keras.Sequential([
        layers.Rescaling(1 / 255), layers.Normalization(mean=data.mean, variance=[one**2 for one in data.std]),
        layers.ZeroPadding2D(4), layers.RandomCrop(32, 32), layers.RandomFlip("horizontal")])
    batches = tf.data.Dataset.from_tensor_slices((data.train.pixels, data.train.labels)).shuffle(len(data.train))
    batches = batches.batch(config.train.batch_size, drop_remainder=True)
    batches = batches.map(lambda images, labels: (augment(images, training=True), labels), tf.data.AUTOTUNE)
    keras.mixed_precision.set_dtype_policy(POLICY[config.hardware.precision])
    model = build_model(config, data)
    model.compile(keras.optimizers.Adam(config.optimizer.lr),
                  keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    times = []
    clock = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: times.append(time.perf_counter()),
                                           on_train_end=lambda logs: times.append(time.perf_counter()))
    model.fit(batches.prefetch(tf.data.AUTOTUNE), epochs=epochs, callbacks=[clock], verbose=0)
    write_epochs(out, [end - start for start, end in itertools.pairwise(times)], len(batches))


def write_epochs(out: Path, seconds: list[float], steps: int) -> None:
    """Write what `shared.bench.article` reads: of the first epoch, of those that follow, and of this process."""
    from keras_project.runtime import measure_peak_memory

    out.write_text(json.dumps({"steps": steps, "first_seconds": seconds[0], "later_seconds": min(seconds[1:]),
                               "peak_memory_gib": measure_peak_memory()}), encoding="utf-8")


def measure_input(config: Config, out: Path, seconds: int) -> None:
    """Write how many training images per second are read and augmented, without a model, and peak memory to `out`."""
    hardware.use_cores(config.hardware.workers)
    from keras_project.data import build_train_dataset
    from keras_project.runtime import build_runtime
    from shared.data.batches import count_steps
    from shared.data.cache import cache_images
    from shared.data.loading import load_data

    runtime, data = build_runtime(config), load_data(config)
    steps = count_steps(config, len(data.train))
    started = time.perf_counter()
    batches = iter(build_train_dataset(config, cache_images(config, data), runtime))
    rates = time_epochs(lambda epoch: sum(len(next(batches)[0]) for _ in range(steps)), started, seconds)
    write_rates(out, rates)


def measure_stock_input(config: Config, out: Path, seconds: int) -> None:
    """The same of the recipe in Keras' documentation, which scales whole images."""
    hardware.use_cores(config.hardware.workers)
    import keras
    import tensorflow as tf
    from keras import layers

    augment = keras.Sequential([layers.RandomFlip("horizontal"), layers.Rescaling(1 / 127.5, offset=-1)])
    started = time.perf_counter()
    batches = keras.utils.image_dataset_from_directory(
        f"{config.dataset.root}/train", batch_size=config.train.batch_size, image_size=(config.dataset.image_size,) * 2)
    batches = batches.map(lambda images, labels: (augment(images, training=True), labels)).prefetch(tf.data.AUTOTUNE)
    rates = time_epochs(lambda epoch: sum(len(images) for images, _ in batches), started, seconds)
    write_rates(out, rates)


def write_rates(out: Path, rates: dict[str, float]) -> None:
    out.write_text(json.dumps(rates | {"peak_memory_gib": hardware.measure_peak_memory()}), encoding="utf-8")


if __name__ == "__main__":
    measure = {"rounds": measure_rounds, "bare": measure_bare, "bare_per_core": measure_bare_per_core,
               "training": measure_training, "stock_training": measure_stock_training, "input": measure_input,
               "stock_input": measure_stock_input}[sys.argv[3]]
    measure(load_config(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[4]))
