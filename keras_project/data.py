"""The batches of `shared.data.batches` in `tf.data` pipelines."""

import tensorflow as tf

from keras_project.augment import Augmentation
from keras_project.runtime import Runtime
from shared.config import Config
from shared.data.batches import Batches, EvalBatches, TrainBatches
from shared.data.loading import Data, Images
from shared.machine.console import tell_if_slow


def build_train_dataset(config: Config, data: Data, runtime: Runtime, first_step: int = 0) -> tf.data.Dataset:
    """The training batches of all epochs from `first_step` on, as (images, targets).

    They are global batches, which the strategy divides among devices.
    """
    return build_dataset(config, data, TrainBatches(config, data), runtime, first_step * config.train.accumulate)


def build_eval_batches(config: Config, data: Data, split: Images, runtime: Runtime) -> EvalBatches:
    """The batches of one pass over a split, filled up so that they can be divided among the devices."""
    # For a TPU all batches have to be of the same size.
    multiple = config.train.eval_batch_size if runtime.accelerator == "tpu" else runtime.strategy.num_replicas_in_sync
    return EvalBatches(config, data, split, multiple_of=multiple)


def build_eval_dataset(config: Config, data: Data, split: Images, runtime: Runtime) -> tf.data.Dataset:
    """One pass over a split as (images, targets, weights), with the last partial batch. See `EvalBatches`."""
    return build_dataset(config, data, build_eval_batches(config, data, split, runtime), runtime)


def build_dataset(config: Config, data: Data, batches: Batches, runtime: Runtime,
                  first: int = 0) -> tf.data.Dataset:
    """The batches from number `first` on, in order, read in parallel and augmented.

    Each is a tuple of images (n, S, S, C), targets (n, K) and, in evaluation, weights (n,).
    """
    augment = Augmentation(config.augment, data.mean, data.std, runtime.dtype)

    def augment_batch(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        weights = [tf.cast(batch["weight"], runtime.dtype)] if "weight" in batch else []
        return augment(batch), tf.cast(batch["target"], runtime.dtype), *weights

    # There is nothing to tune, and at its end an iterator would wait half a minute for the tuner.
    options = tf.data.Options()
    options.autotune.enabled = False
    # Each worker reads the global batches, in the same order, and keeps its part of each.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return read_dataset(batches, runtime, first).map(augment_batch).prefetch(2).with_options(options)


def read_dataset(batches: Batches, runtime: Runtime, first: int = 0) -> tf.data.Dataset:
    """The batches from number `first` on, read in parallel, as dictionaries of tensors, before augmentation."""
    spec = batches.describe_arrays()

    def read_batch(number: tf.Tensor) -> dict[str, tf.Tensor]:
        def list_arrays(number: int) -> list:
            with tell_if_slow("reading a batch of images"):
                batch = batches[int(number)]
            return [batch[name] for name in spec]
        arrays = tf.numpy_function(list_arrays, [number], [dtype for dtype, _ in spec.values()], stateful=False)
        return {name: tf.ensure_shape(array, shape)
                for (name, (_, shape)), array in zip(spec.items(), arrays, strict=True)}

    workers = runtime.choose_workers(from_files=batches.split.takes_time) or 1
    return tf.data.Dataset.range(first, len(batches)).map(read_batch, num_parallel_calls=workers)
