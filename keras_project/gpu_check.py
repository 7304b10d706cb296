"""This sibling's half of `shared.bench.gpu`: python -m keras_project.gpu_check CONFIG OUT WHAT COUNT

WHAT is describe; killed, after step COUNT; or little_memory, with COUNT MiB of the GPU's.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from shared.config import Config, load_config
from shared.machine.ending import report_errors
from shared.machine.versions import list_versions


def describe_gpu(config: Config, out: Path, count: int) -> None:
    """Write which GPU TensorFlow finds, unless the config wants the CPU, and the versions of packages to `out`."""
    found: dict[str, Any] = {"versions": list_versions()}
    if config.hardware.accelerator != "cpu":
        import tensorflow as tf

        if gpus := tf.config.list_physical_devices("GPU"):
            details, build = tf.config.experimental.get_device_details(gpus[0]), tf.sysconfig.get_build_info()
            found |= {"gpu": details.get("device_name", "GPU"), "gpus": len(gpus),
                      "capability": list(details.get("compute_capability", ())),
                      "cuda": build.get("cuda_version"), "cudnn": build.get("cudnn_version")}
    out.write_text(json.dumps(found), encoding="utf-8")


def train_until_killed(config: Config, out: Path, step: int) -> None:
    """Train until SIGKILL ends this process after a training step, counted from 1."""
    import keras

    from keras_project.checkpoints import to_numpy
    from keras_project.train import train

    class Killer(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            if int(to_numpy(self.model.optimizer.iterations)) == step:
                os.kill(os.getpid(), signal.SIGKILL)
    train(config, [Killer()])


def train_in_little_memory(config: Config, out: Path, mebibytes: int) -> None:
    """Train with no more of the GPU's memory."""
    import tensorflow as tf

    from keras_project.train import train

    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("GPU")[0],
                                               [tf.config.LogicalDeviceConfiguration(memory_limit=mebibytes)])
    train(config)


if __name__ == "__main__":
    check = {"describe": describe_gpu, "killed": train_until_killed,
             "little_memory": train_in_little_memory}[sys.argv[3]]
    report_errors(lambda: check(load_config(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[4])))
