"""Measures for `shared.bench`: python -m keras_project.bench CONFIG OUT rounds ROUNDS, or bare STEPS"""

import json
import sys
import time
from pathlib import Path

from shared.config import Config, load_config


def bare_images_per_second(config: Config, steps: int) -> float:
    """Training steps on one batch in memory, without `fit`, data or callbacks."""
    import tensorflow as tf

    from keras_project.classifier import build_loss
    from keras_project.data import train_dataset
    from keras_project.models import build_model
    from keras_project.optim import build_optimizer
    from keras_project.runtime import build_runtime
    from keras_project.training_rules import LossScale
    from shared.batches.data import load_data

    runtime = build_runtime(config)
    data = load_data(config)
    images, target = next(iter(train_dataset(config, data, runtime)))
    model = runtime.prepare(build_model(config, data))
    optimizer = build_optimizer(config, steps)
    optimizer.build(model.trainable_variables)
    loss_of = build_loss(config)
    scaled = runtime.facts["precision"] == "fp16"
    if scaled:
        optimizer = LossScale(optimizer)

    @tf.function(jit_compile=config.hardware.compile)
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = loss_of(target, model(images, training=True))
            objective = optimizer.scale_loss(loss) if scaled else loss
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(objective, [variable.value for variable in variables]), variables)
        return loss

    step().numpy()
    started = time.perf_counter()
    for _ in range(steps):
        step().numpy()
    return steps * len(images) / (time.perf_counter() - started)


def measure_bare(config: Config, out: Path, steps: int) -> None:
    from keras_project.runtime import peak_memory_gib

    out.write_text(json.dumps({"bare": bare_images_per_second(config, steps), "peak_memory_gib": peak_memory_gib()}))


def measure_rounds(config: Config, out: Path, rounds: int) -> None:
    from keras_project.train import train

    measured = []
    for _ in range(rounds):
        result = train(config)
        steps = round(result["perf/epoch_seconds"] * result["perf/images_per_second"] / config.train.batch_size)
        measured.append({"train": result["perf/images_per_second"], "bare": bare_images_per_second(config, steps)})
    out.write_text(json.dumps(measured))


if __name__ == "__main__":
    work = {"rounds": measure_rounds, "bare": measure_bare}[sys.argv[3]]
    work(load_config(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[4]))
