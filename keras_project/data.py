"""Batches of the experiment as `tf.data` pipelines."""

import tensorflow as tf

from keras_project.augment import Augment
from keras_project.runtime import Runtime
from shared.batches.batches import Batches, EvalBatches, TrainBatches
from shared.batches.data import Data, Images
from shared.config import Config


def train_dataset(config: Config, data: Data, runtime: Runtime, first_step: int = 0) -> tf.data.Dataset:
    """All training batches of all epochs from `first_step` on, as (images, targets); the strategy shares them out."""
    return build_dataset(config, data, TrainBatches(config, data), runtime, first_step * config.train.accumulate)


def eval_batches(config: Config, data: Data, split: Images, runtime: Runtime) -> EvalBatches:
    # A TPU is compiled for one size of batch.
    multiple = config.train.eval_batch_size if runtime.accelerator == "tpu" else runtime.strategy.num_replicas_in_sync
    return EvalBatches(config, data, split, multiple_of=multiple)


def eval_dataset(config: Config, data: Data, split: Images, runtime: Runtime) -> tf.data.Dataset:
    """One pass over a split as (images, targets, weights), the last partial batch included. See `EvalBatches`."""
    return build_dataset(config, data, eval_batches(config, data, split, runtime), runtime)


def build_dataset(config: Config, data: Data, batches: Batches, runtime: Runtime,
                  first: int = 0) -> tf.data.Dataset:
    """`batches` from number `first` on, read in parallel, in order, and augmented: images (n, S, S, C), targets (n, K)
    and, in evaluation, weights (n,)."""
    augment = Augment(config.augment, data.mean, data.std, runtime.dtype)

    def finish(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        weights = [tf.cast(batch["weight"], runtime.dtype)] if "weight" in batch else []
        return augment(batch), tf.cast(batch["target"], runtime.dtype), *weights

    # Nothing to tune, and an iterator that ends waits for the tuner to wake: half a minute after the last epoch.
    options = tf.data.Options()
    options.autotune.enabled = False
    # Each worker reads whole batches, in the same order, and keeps its share.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return read_dataset(batches, runtime, first).map(finish).prefetch(2).with_options(options)


def read_dataset(batches: Batches, runtime: Runtime, first: int = 0) -> tf.data.Dataset:
    """`batches` from number `first` on as dictionaries of tensors, before augmentation."""
    spec = batches.describe_arrays()

    def read(step: tf.Tensor) -> dict[str, tf.Tensor]:
        def batch_of(number: int) -> list:
            batch = batches[int(number)]
            return [batch[name] for name in spec]
        arrays = tf.numpy_function(batch_of, [step], [dtype for dtype, _ in spec.values()], stateful=False)
        return {name: tf.ensure_shape(array, shape)
                for (name, (_, shape)), array in zip(spec.items(), arrays, strict=True)}

    workers = runtime.workers(from_files=batches.split.files is not None) or 1
    return tf.data.Dataset.range(first, len(batches)).map(read, num_parallel_calls=workers)
