"""What Keras' own `fit` lacks under MultiWorkerMirroredStrategy, and the few things that workers tell each other.

Keras 3.15.1 breaks in two places of keras/src/backend/tensorflow/trainer.py: `_maybe_symbolic_build` hands batches that
are spread over replicas to code that expects tensors, and `reduce_per_replica` takes the mean of scalars over an axis
that they do not have. tests/siblings/test_devices.py says when a release of Keras no longer needs this. The other
sibling has no such file, since Lightning's DDP needs nothing mended and its processes talk through torch.distributed.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

FOLDER_BYTES = 1024


def patch_fit() -> None:
    """Replace both functions, for this process."""
    original = trainer.reduce_per_replica

    def reduce_per_replica(values: Any, strategy: tf.distribute.Strategy, reduction: str) -> Any:
        if reduction in ("auto", "mean"):
            return tf.nest.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)
        return original(values, strategy, reduction)

    trainer.reduce_per_replica = reduce_per_replica
    # Variables are built when the first step is traced instead.
    trainer.TensorFlowTrainer._maybe_symbolic_build = lambda self, iterator=None, data_batch=None: None


@lru_cache
def build_adder(strategy: tf.distribute.Strategy) -> Callable[[np.ndarray], tf.Tensor]:
    """A function that adds up what the workers call it with, (n,) int32, for every one of them."""
    def add(values: tf.Tensor) -> tf.Tensor:
        here = tf.distribute.get_replica_context().replica_id_in_sync_group % len(strategy.extended.worker_devices) == 0
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.where(here, values, 0))
    return tf.function(lambda values: strategy.experimental_local_results(strategy.run(add, args=(values,)))[0])


def broadcast_text(strategy: tf.distribute.Strategy, text: str) -> str:
    """The text of the one worker whose `text` is not empty, of up to 1024 bytes, in every worker."""
    codes = np.zeros(FOLDER_BYTES, np.int32)
    content = np.frombuffer(text.encode(), np.uint8)
    codes[:len(content)] = content
    total = build_adder(strategy)(tf.constant(codes))
    return bytes(total.numpy().astype(np.uint8)).rstrip(b"\0").decode()


def is_any_true(strategy: tf.distribute.Strategy, here: bool) -> bool:
    """Whether it is so in any worker; each must ask at the same place. Without workers, whether it is so here."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return here
    return bool(build_adder(strategy)(tf.constant([int(here)])).numpy()[0])
