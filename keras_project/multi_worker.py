"""What Keras' own `fit` lacks under MultiWorkerMirroredStrategy, and the one thing that workers tell each other.

Keras 3.15.1 breaks in two places of keras/src/backend/tensorflow/trainer.py: `_maybe_symbolic_build` hands batches that
are spread over replicas to code that expects tensors, and `reduce_per_replica` takes the mean of scalars over an axis
that they do not have. tests/siblings/test_devices.py says when a release of Keras no longer needs this.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

FOLDER_BYTES = 1024


def mend_fit() -> None:
    """Replace both functions, for this process."""
    original = trainer.reduce_per_replica

    def reduce_per_replica(values: Any, strategy: tf.distribute.Strategy, reduction: str) -> Any:
        if reduction in ("auto", "mean"):
            return tf.nest.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)
        return original(values, strategy, reduction)

    trainer.reduce_per_replica = reduce_per_replica
    # Variables are built when the first step is traced instead.
    trainer.TensorFlowTrainer._maybe_symbolic_build = lambda self, iterator=None, data_batch=None: None


def agree_on(strategy: tf.distribute.Strategy, text: str) -> str:
    """The text of the one worker whose `text` is not empty, of up to 1024 bytes, in every worker."""
    codes = np.zeros(FOLDER_BYTES, np.int32)
    content = np.frombuffer(text.encode(), np.uint8)
    codes[:len(content)] = content

    def add() -> tf.Tensor:
        here = tf.distribute.get_replica_context().replica_id_in_sync_group % len(strategy.extended.worker_devices) == 0
        own = tf.where(here, tf.constant(codes), 0)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own)

    total = strategy.experimental_local_results(strategy.run(tf.function(add)))[0]
    return bytes(total.numpy().astype(np.uint8)).rstrip(b"\0").decode()
