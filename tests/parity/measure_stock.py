"""What this repository's optimizers and BatchNorm cost beside Keras' own: python -m tests.parity.measure_stock

Run by hand, not by pytest; its Markdown table is the one in docs/differences.md. Whole training steps of
ResNet-18 on one batch in memory. The variants take turns step by step, in another order each round, so that whatever
else the machine does meets all of them alike. TensorFlow gets one thread and processor time is counted beside the wall
clock, since a busy neighbour lengthens the second far more than the first.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import product

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from keras_project.models import resnet
from keras_project.models.layers import BatchNorm
from keras_project.optim import TableSchedule
from keras_project.runtime import POLICY
from keras_project.training_rules import with_training_rules
from keras_project.update_rules import SGD, AdamW
from shared.config import ModelConfig

BATCH = 64
RATES = TableSchedule(np.linspace(0.01, 0.001, 1000))

OURS_SGD = partial(with_training_rules(SGD), RATES, momentum=0.9, nesterov=True, weight_decay=5e-4)
STOCK_SGD = partial(keras.optimizers.SGD, RATES, momentum=0.9, nesterov=True, weight_decay=5e-4)
OURS_ADAMW = partial(with_training_rules(AdamW), RATES, weight_decay=0.01)
STOCK_ADAMW = partial(keras.optimizers.AdamW, RATES, weight_decay=0.01, epsilon=1e-8)
STOCK_NORM = partial(keras.layers.BatchNormalization, momentum=0.9, epsilon=1e-5)

VARIANTS = {"ours": (OURS_SGD, BatchNorm), "stock SGD": (STOCK_SGD, BatchNorm), "our AdamW": (OURS_ADAMW, BatchNorm),
            "stock AdamW": (STOCK_ADAMW, BatchNorm), "stock BatchNormalization": (OURS_SGD, STOCK_NORM)}
# Ours first: above 1, ours is the slower.
PAIRS = {"SGD": ("ours", "stock SGD"), "AdamW": ("our AdamW", "stock AdamW"),
         "BatchNorm": ("ours", "stock BatchNormalization")}


def training_step(size: int, optimizer: keras.optimizers.Optimizer, norm: Callable) -> Callable[[], tf.Tensor]:
    """A compiled training step on one batch, compiled and run once already."""
    resnet.BatchNorm = norm
    model = resnet.build_resnet(ModelConfig(), channels=3, classes=10, image_size=size)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.standard_normal((BATCH, size, size, 3)), tf.float32)
    target = tf.one_hot(rng.integers(10, size=BATCH), 10)
    loss_of = keras.losses.CategoricalCrossentropy(from_logits=True)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = loss_of(target, model(images, training=True))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
        return loss

    assert np.isfinite(step().numpy())
    return step


def seconds(step: Callable[[], tf.Tensor], steps: int) -> tuple[float, float]:
    """Processor and wall-clock time of so many steps."""
    processor, wall = time.process_time(), time.perf_counter()
    for _ in range(steps):
        step().numpy()
    return time.process_time() - processor, time.perf_counter() - wall


def cell(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 32], help="height and width of the images")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.set_visible_devices([], "GPU")

    print("| images, precision | class | processor time, ratio | wall clock, ratio |")
    print("| --- | --- | ---: | ---: |")
    for size, precision in product(arguments.sizes, arguments.precisions):
        keras.backend.clear_session()
        keras.config.set_dtype_policy(POLICY[precision])
        steps = {name: training_step(size, rule(), norm) for name, (rule, norm) in VARIANTS.items()}
        times = {name: [] for name in VARIANTS}
        for turn in range(arguments.rounds):
            spent = dict.fromkeys(VARIANTS, (0.0, 0.0))
            for repeat in range(16 if size <= 8 else 2):
                names = list(VARIANTS)
                shift = (turn + repeat) % len(names)
                for name in names[shift:] + names[:shift]:
                    spent[name] = tuple(np.add(spent[name], seconds(steps[name], 1)))
            for name, pair in spent.items():
                times[name].append(pair)
        for label, (ours, stock) in PAIRS.items():
            ratios = [[a[clock] / b[clock] for a, b in zip(times[ours], times[stock], strict=True)]
                      for clock in (0, 1)]
            print(f"| {size}x{size}, {precision} | {label} | {cell(ratios[0])} | {cell(ratios[1])} |", flush=True)


if __name__ == "__main__":
    main()
