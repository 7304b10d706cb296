"""Accelerator, precision, threads: what the config asks for, in Keras' and TensorFlow's terms."""

import json
import os
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_project.executor import executor
from keras_project.multi_worker import broadcast_text, patch_fit
from shared.config import Config, HardwareConfig
from shared.config.rules import require_equal_shares
from shared.errors import UserError
from shared.machine import hardware
from shared.machine.console import say
from shared.models import has_depthwise

POLICY = {"fp32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16", "fp64": "float64"}


@dataclass(frozen=True)
class Runtime:
    """What a run computes on and in: `accelerator` is cpu, gpu or tpu, `dtype` that of the images, `rank` the number of
    this process among so many `processes`; models are built in the scope of `strategy`; `facts` are for run.json."""

    config: Config
    accelerator: str
    dtype: tf.DType
    rank: int
    processes: int
    strategy: tf.distribute.Strategy
    facts: dict[str, Any]

    @property
    def leader(self) -> bool:
        return self.rank == 0

    def prepare_model(self, model: keras.Model) -> keras.Model:
        """Synchronise the model's BatchNorm layers over devices where the config asks for it, and return the model."""
        for layer in model._flatten_layers():  # Keras has no public way to layers within layers
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = self.config.hardware.sync_batchnorm and executor.SYNCHRONISES
        return model

    def broadcast_text(self, text: str) -> str:
        """The `text` of the leader, in every process. All have to call this."""
        return broadcast_text(self.strategy, text if self.leader else "") if self.processes > 1 else text

    def choose_workers(self, from_files: bool) -> int:
        """How many threads read training batches; 0 means that one is enough."""
        return hardware.choose_workers(self.config.hardware.workers, from_files, self.accelerator)


def build_runtime(config: Config) -> Runtime:
    """Choose accelerator, precision and devices, make the global settings of TensorFlow and Keras, and print the choice
    in one line.

    Raises:
        UserError: where the machine lacks what the config asks for.
    """
    settings, debug = config.hardware, config.debug
    executor.refuse_settings(config)
    if settings.threads:
        executor.set_threads(settings.threads)
    gpus = executor.list_gpus()
    hardware.tell_unused_gpu(settings.accelerator, len(gpus), executor.NAME)
    tpu = hardware.has_tpu() and (settings.accelerator == "tpu" or executor.has_tpu_support())
    accelerator = hardware.choose_accelerator(settings.accelerator, len(gpus), tpu)
    on_gpu = accelerator == "gpu"
    devices = hardware.choose_devices(settings.devices, accelerator, len(gpus) if on_gpu else settings.devices)
    executor.use_gpus(gpus[:devices] if on_gpu else [])
    # This comes first, because the multi-worker strategy refuses to start where TensorFlow has already computed.
    rank, processes, strategy = build_strategy(settings, accelerator, devices)
    require_equal_shares(config, strategy.num_replicas_in_sync)
    device, has_bf16 = executor.describe_gpu(gpus[0]) if on_gpu else (hardware.describe_cpu(), False)
    precision = hardware.choose_precision(settings.precision, accelerator, has_bf16, has_depthwise(config.model.name))
    # Keras reads these from the user's keras.json, or from what a notebook has set.
    keras.config.set_image_data_format("channels_last")
    keras.config.set_epsilon(1e-7)
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)
    # The policy sets the dtype of layers, and floatx that of losses, metrics and optimizers.
    keras.config.set_floatx("float64" if precision == "fp64" else "float32")
    keras.config.set_dtype_policy(POLICY[precision])
    keras.utils.set_random_seed(config.seed)
    executor.set_debugging(debug)
    name = "one device" if isinstance(strategy, executor.OneDevice) else \
        f"{type(strategy).__name__.removesuffix('Strategy')} on {strategy.num_replicas_in_sync}"
    say(f"Keras {keras.__version__} and {executor.NAME} on {device} ({accelerator}), {precision}, {name}",
        leader=rank == 0)
    facts = {"backend": executor.NAME, "device": f"{device} ({accelerator})", "precision": precision,
             "devices": strategy.num_replicas_in_sync, "strategy": name, "threads": executor.count_threads(),
             "tf32": on_gpu and executor.uses_tf32()}
    return Runtime(config, accelerator, tf.float64 if precision == "fp64" else tf.float32, rank, processes, strategy,
                   facts)


def build_strategy(settings: HardwareConfig, accelerator: str, devices: int) -> tuple[int, int, tf.distribute.Strategy]:
    """This process' rank, the number of processes, and TensorFlow's strategy for `hardware.strategy`.

    Raises:
        UserError: for FSDP, for several machines without a cluster, for a TPU that cannot be reached.
    """
    if settings.strategy == "fsdp":
        raise UserError("hardware.strategy=fsdp is Lightning's; use data_parallel in Keras")
    if keras.config.backend() == "jax":  # which has refused all else
        return 0, 1, executor.OneDevice()
    if accelerator == "tpu":
        return 0, 1, connect_tpu()
    if settings.num_nodes > 1:
        if devices > 1 and accelerator == "cpu":
            raise UserError("hardware.devices must be 1 where several machines compute on CPUs")
        resolver = find_cluster(settings.num_nodes, devices)
        patch_fit()
        return resolver.task_id, settings.num_nodes, tf.distribute.MultiWorkerMirroredStrategy(resolver)
    if devices == 1 and settings.strategy != "data_parallel":
        return 0, 1, tf.distribute.get_strategy()
    if accelerator == "gpu":
        return 0, 1, tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(devices)])
    try:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * devices)
    except RuntimeError:  # TensorFlow has already computed in this process, such as in a notebook or a test
        if len(tf.config.list_logical_devices("CPU")) < devices:
            raise UserError(f"hardware.devices={devices}, but TensorFlow runs on fewer already; start a new process") \
                from None
    return 0, 1, tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])


def find_cluster(nodes: int, devices: int) -> tf.distribute.cluster_resolver.ClusterResolver:
    """The cluster that TF_CONFIG or else SLURM describes.

    Raises:
        UserError: where there is none, or it has another number of machines than `nodes`.
    """
    if "TF_CONFIG" in os.environ:
        try:
            workers = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"]
        except (ValueError, KeyError, TypeError):
            raise UserError('TF_CONFIG is not {"cluster": {"worker": [...]}, "task": {"type": "worker", "index": 0}}; '
                            "see docs/scaling.md") from None
        resolver, number = tf.distribute.cluster_resolver.TFConfigClusterResolver(), len(workers)
    elif "SLURM_PROCID" in os.environ:
        # TensorFlow's resolver sorts host names as text and gives each job port 8888. slurm_keras.sbatch avoids both by
        # setting TF_CONFIG.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=devices * nodes,  # so many, in case all tasks run on one machine
            gpus_per_task=devices, auto_set_gpu=False)
        number = resolver.cluster_spec().num_tasks("worker")  # this sets the resolver's task_id too
    else:
        raise UserError(f"hardware.num_nodes={nodes} needs a launcher that sets TF_CONFIG, or SLURM; see "
                        "docs/scaling.md")
    if number != nodes:
        raise UserError(f"the cluster has {number} workers, hardware.num_nodes={nodes}; make them agree")
    return resolver


def connect_tpu() -> tf.distribute.Strategy:
    """The strategy of this machine's TPU, or of the one that TPU_NAME names.

    Raises:
        UserError: where the TPU cannot be used.
    """
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(os.environ.get("TPU_NAME", "local"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise UserError(f"the TPU cannot be used ({str(error).splitlines()[0]}); install the extra tpu, or use "
                        "hardware.accelerator=cpu") from None
    return tf.distribute.TPUStrategy(resolver)


def measure_peak_memory() -> float:
    """Peak memory in GiB: what the backend used on a GPU, otherwise that of this process in RAM."""
    return executor.measure_peak_memory()
