"""Accelerator, precision, threads: what the config asks for, in Lightning's terms."""

import logging
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from shared import hardware
from shared.config import Config
from shared.recorder import say

PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed", "fp64": "64-true"}


@dataclass(frozen=True)
class Runtime:
    """What was chosen: `accelerator` cpu or gpu, `dtype` of the images, arguments of `Trainer`, facts for run.json."""

    config: Config
    accelerator: str
    dtype: torch.dtype
    trainer: dict[str, Any]
    facts: dict[str, Any]

    def workers(self, from_files: bool) -> int:
        return hardware.reader_count(self.config.hardware.workers, from_files, self.accelerator)


def build_runtime(config: Config) -> Runtime:
    """Choose, set what is global in PyTorch, and say in one line what was chosen.

    Raises:
        UserError: where the machine lacks what the config asks for.
    """
    settings, debug = config.hardware, config.debug
    if settings.threads:
        torch.set_num_threads(settings.threads)
    accelerator = hardware.choose_accelerator(settings.accelerator, torch.cuda.device_count())
    on_gpu = accelerator == "gpu"
    precision = hardware.choose_precision(settings.precision, accelerator, on_gpu and torch.cuda.is_bf16_supported())
    device = torch.cuda.get_device_name() if on_gpu else hardware.cpu_name()
    dtype = torch.float64 if precision == "fp64" else torch.float32
    # Lightning's fp64 leaves metrics alone, and torchmetrics forgets its own `set_dtype` when moved to a device.
    torch.set_default_dtype(dtype)
    say(f"PyTorch {torch.__version__} on {device} ({accelerator}), {precision}")
    # Our line has said it; and the warning is about code of Lightning's own that no user can change.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated")
    trainer = {
        "accelerator": accelerator, "devices": settings.devices, "precision": PRECISION[precision],
        "gradient_clip_val": config.train.grad_clip or None, "logger": False, "num_sanity_val_steps": 0,
        "enable_model_summary": False, "enable_progress_bar": sys.stderr.isatty(),
        "detect_anomaly": debug.detect_anomaly, "deterministic": debug.deterministic,
        # Batches are cut in shared.batches already, in the same place for both siblings.
        "use_distributed_sampler": False}
    facts = {"device": f"{device} ({accelerator})", "precision": precision,
             "tf32": on_gpu and torch.backends.cudnn.allow_tf32}
    return Runtime(config, accelerator, dtype, trainer, facts)


def peak_memory_gib() -> float:
    """Peak memory in GiB: what PyTorch reserved on the GPU, else what the process held in RAM."""
    if torch.cuda.is_available() and torch.cuda.max_memory_reserved():
        return torch.cuda.max_memory_reserved() / 2**30
    return hardware.peak_memory_gib()
