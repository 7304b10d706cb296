"""This sibling's half of `shared.bench.gpu`: python -m lightning_project.gpu_check CONFIG OUT WHAT COUNT

WHAT is describe; killed, after step COUNT; little_memory, with COUNT MiB of the GPU's; or layouts, of COUNT steps.
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
    """Write which GPU PyTorch finds, unless the config wants the CPU, and the versions of packages to `out`."""
    found: dict[str, Any] = {"versions": list_versions(("timm", "triton"))}
    if config.hardware.accelerator != "cpu":
        import torch

        if torch.cuda.is_available():
            found |= {"gpu": torch.cuda.get_device_name(), "gpus": torch.cuda.device_count(),
                      "capability": list(torch.cuda.get_device_capability()),
                      "memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30,
                      "cuda": torch.version.cuda or torch.version.hip, "cudnn": torch.backends.cudnn.version()}
    out.write_text(json.dumps(found), encoding="utf-8")


def train_until_killed(config: Config, out: Path, step: int) -> None:
    """Train until SIGKILL ends this process after a training step, counted from 1."""
    from lightning.pytorch.callbacks import Callback

    from lightning_project.train import train

    class Killer(Callback):
        def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
            if trainer.global_step == step:
                os.kill(os.getpid(), signal.SIGKILL)
    train(config, [Killer()])


def train_in_little_memory(config: Config, out: Path, mebibytes: int) -> None:
    """Train with no more of the GPU's memory."""
    import torch

    from lightning_project.train import train

    torch.cuda.set_per_process_memory_fraction(
        mebibytes * 2**20 / torch.cuda.get_device_properties(0).total_memory)
    train(config)


def measure_layouts(config: Config, out: Path, steps: int) -> None:
    """Write the speed of bare steps, in images per second, with images and weights in each memory layout to `out`."""
    import torch

    from lightning_project.bench import build_train_step, time_steps

    layouts = {"as trained": None, "channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    found = {name: time_steps(*build_train_step(config, layout), steps) for name, layout in layouts.items()}
    out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    check = {"describe": describe_gpu, "killed": train_until_killed, "little_memory": train_in_little_memory,
             "layouts": measure_layouts}[sys.argv[3]]
    report_errors(lambda: check(load_config(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[4])))
