"""Accelerator, precision, threads: what the config asks for, in Keras' and TensorFlow's terms."""

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from shared import hardware
from shared.config import Config
from shared.recorder import say

POLICY = {"fp32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16", "fp64": "float64"}


@dataclass(frozen=True)
class Runtime:
    """What was chosen: `accelerator` cpu or gpu, `dtype` of the images, facts for run.json."""

    config: Config
    accelerator: str
    dtype: tf.DType
    facts: dict[str, Any]

    def workers(self, from_files: bool) -> int:
        return hardware.reader_count(self.config.hardware.workers, from_files, self.accelerator)


def build_runtime(config: Config) -> Runtime:
    """Choose, set what is global in TensorFlow and Keras, and say in one line what was chosen.

    Raises:
        UserError: where the machine lacks what the config asks for.
    """
    settings, debug = config.hardware, config.debug
    if settings.threads:
        tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
    gpus = tf.config.list_physical_devices("GPU")
    accelerator = hardware.choose_accelerator(settings.accelerator, len(gpus))
    on_gpu = accelerator == "gpu"
    tf.config.set_visible_devices(gpus[:settings.devices] if on_gpu else [], "GPU")
    details = tf.config.experimental.get_device_details(gpus[0]) if on_gpu else {}
    # Tensor cores take bfloat16 from compute capability 8.0 (Ampere) on.
    precision = hardware.choose_precision(settings.precision, accelerator,
                                          details.get("compute_capability", (0, 0)) >= (8, 0))
    # The policy is that of layers; floatx that of losses, metrics and optimizers.
    keras.config.set_floatx("float64" if precision == "fp64" else "float32")
    keras.config.set_dtype_policy(POLICY[precision])
    keras.utils.set_random_seed(config.seed)
    if debug.deterministic:
        tf.config.experimental.enable_op_determinism()
    if debug.detect_anomaly:
        tf.debugging.enable_check_numerics()
    device = details.get("device_name", "GPU") if on_gpu else hardware.cpu_name()
    say(f"Keras {keras.__version__} and TensorFlow {tf.__version__} on {device} ({accelerator}), {precision}")
    facts = {"device": f"{device} ({accelerator})", "precision": precision,
             "tf32": on_gpu and tf.config.experimental.tensor_float_32_execution_enabled()}
    return Runtime(config, accelerator, tf.float64 if precision == "fp64" else tf.float32, facts)


def peak_memory_gib() -> float:
    """Peak memory in GiB: what TensorFlow used on the GPU, else what the process held in RAM."""
    if tf.config.get_visible_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30
    return hardware.peak_memory_gib()
