"""Corrections of Keras' `fit` for MultiWorkerMirroredStrategy, and messages between workers.

Keras 3.15.1 fails in two functions of keras/src/backend/tensorflow/trainer.py: `_maybe_symbolic_build` passes batches
that are distributed over replicas to code that expects tensors, and `reduce_per_replica` takes the mean of scalars over
an axis that they do not have. tests/siblings/test_devices.py fails when a release of Keras no longer needs this. The
other sibling has no such file, since Lightning's DDP needs no correction, and its processes use torch.distributed.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

TEXT_BYTES = 1024  # the longest text that workers can send


def patch_fit() -> None:
    """Replace both functions in this process."""
    original = trainer.reduce_per_replica

    def reduce_per_replica(values: Any, strategy: tf.distribute.Strategy, reduction: str) -> Any:
        if reduction in ("auto", "mean"):
            return tf.nest.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)
        return original(values, strategy, reduction)

    trainer.reduce_per_replica = reduce_per_replica
    # Without it, variables are built when the first step is traced.
    trainer.TensorFlowTrainer._maybe_symbolic_build = lambda self, iterator=None, data_batch=None: None


@lru_cache
def build_adder(strategy: tf.distribute.Strategy) -> Callable[[np.ndarray], tf.Tensor]:
    """A function that returns, in every worker, the sum of the arrays (n,) int32 that the workers call it with."""
    def add(values: tf.Tensor) -> tf.Tensor:
        here = tf.distribute.get_replica_context().replica_id_in_sync_group % len(strategy.extended.worker_devices) == 0
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.where(here, values, 0))
    return tf.function(lambda values: strategy.experimental_local_results(strategy.run(add, args=(values,)))[0])


def broadcast_text(strategy: tf.distribute.Strategy, text: str) -> str:
    """The text of the one worker whose `text` is not empty, in every worker. It has at most TEXT_BYTES bytes."""
    padded = np.zeros(TEXT_BYTES, np.int32)
    content = np.frombuffer(text.encode(), np.uint8)
    padded[:len(content)] = content
    total = build_adder(strategy)(tf.constant(padded))
    return bytes(total.numpy().astype(np.uint8)).rstrip(b"\0").decode()


def is_any_true(strategy: tf.distribute.Strategy, value: bool) -> bool:
    """Whether `value` is true in any worker. All workers have to call this. Without several workers it is `value`."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return value
    return bool(build_adder(strategy)(tf.constant([int(value)])).numpy()[0])
