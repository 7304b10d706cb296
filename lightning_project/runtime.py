"""Accelerator, precision, threads: what the config asks for, in Lightning's terms."""

import logging
import os
import sys
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy
from torch import distributed, nn

from lightning_project.models.vit import Block
from shared.config import Config, HardwareConfig
from shared.config.rules import require_equal_shares
from shared.errors import UserError
from shared.machine import hardware
from shared.machine.console import say
from shared.models import split_library_name

PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed", "fp64": "64-true"}
# How the process that `train.py` is run in tells the run folder to those that Lightning starts from it.
RUN_FOLDER = "LIGHTNING_PROJECT_RUN"


@dataclass(frozen=True)
class Runtime:
    """What was chosen: `accelerator` cpu or gpu, `dtype` of the images, `rank` of this process among `processes`,
    arguments of `Trainer`, facts for run.json."""

    config: Config
    accelerator: str
    dtype: torch.dtype
    rank: int
    processes: int
    trainer: dict[str, Any]
    facts: dict[str, Any]

    @property
    def leader(self) -> bool:
        return self.rank == 0

    def workers(self, from_files: bool) -> int:
        return hardware.reader_count(self.config.hardware.workers, from_files, self.accelerator)

    def prepare(self, model: nn.Module) -> nn.Module:
        """`model` ready to train on these devices."""
        if self.processes > 1 and self.config.hardware.sync_batchnorm:
            module = "library" if split_library_name(self.config.model.name) else "layers"
            model = import_module(f"lightning_project.models.{module}").synchronise(model, self.accelerator == "gpu")
        if self.config.hardware.compile:
            model.compile()
        return model

    def agree(self, text: str) -> str:
        """The leader's `text`, in every process."""
        if self.processes > 1 and launched_from_outside():
            texts = [text]
            distributed.broadcast_object_list(texts)
            return texts[0]
        if self.leader:
            os.environ[RUN_FOLDER] = text  # the other processes do not exist yet
        return os.environ[RUN_FOLDER]


def build_runtime(config: Config) -> Runtime:
    """Choose, set what is global in PyTorch, and say in one line what was chosen.

    Raises:
        UserError: where the machine lacks what the config asks for.
    """
    settings, debug = config.hardware, config.debug
    if settings.threads:
        torch.set_num_threads(settings.threads)
    gpus = torch.cuda.device_count()
    accelerator = hardware.choose_accelerator(settings.accelerator, gpus)
    on_gpu = accelerator == "gpu"
    # As in Keras: not where it would be emulated, and TF32 where the GPU has it.
    has_bf16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    precision = hardware.choose_precision(settings.precision, accelerator, has_bf16)
    torch.set_float32_matmul_precision("high" if on_gpu else "highest")
    device = torch.cuda.get_device_name() if on_gpu else hardware.cpu_name()
    dtype = torch.float64 if precision == "fp64" else torch.float32
    # Lightning's fp64 leaves metrics alone, and torchmetrics forgets its own `set_dtype` when moved to a device.
    torch.set_default_dtype(dtype)
    devices = choose_devices(settings, accelerator, gpus)
    processes = devices * settings.num_nodes
    require_equal_shares(config, processes)
    rank = process_rank(devices)
    strategy = build_strategy(settings, processes, on_gpu, config.model.freeze != "none")
    name = "one device" if strategy == "auto" else f"{type(strategy).__name__.removesuffix('Strategy')} on {processes}"
    say(f"PyTorch {torch.__version__} on {device} ({accelerator}), {precision}, {name}", leader=rank == 0)
    # Our line has said it; and the warning is about code of Lightning's own that no user can change.
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Our sampler goes on where the checkpoint is; Lightning would see that in a loader with a state of its own.
    warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")
    warnings.filterwarnings("ignore", "The number of training batches .* is smaller than the logging interval")
    warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated")
    trainer = {
        "accelerator": accelerator, "devices": devices, "num_nodes": settings.num_nodes, "strategy": strategy,
        "precision": PRECISION[precision],
        "accumulate_grad_batches": config.train.accumulate, "gradient_clip_val": config.train.grad_clip or None,
        "num_sanity_val_steps": 0, "log_every_n_steps": config.tracking.log_every_steps, "enable_model_summary": False,
        "enable_progress_bar": sys.stderr.isatty(),
        "detect_anomaly": debug.detect_anomaly, "deterministic": debug.deterministic,
        # Batches are cut in shared.batches already, in the same place for both siblings.
        "use_distributed_sampler": False}
    if under_slurm():  # requeueing is the launcher's, which does it for both siblings
        trainer["plugins"] = [SLURMEnvironment(auto_requeue=False)]
    if processes > 1 and launched_from_outside():
        join_processes(rank, processes, on_gpu)
    facts = {"device": f"{device} ({accelerator})", "precision": precision, "devices": processes, "strategy": name,
             "tf32": on_gpu and torch.backends.cudnn.allow_tf32}
    return Runtime(config, accelerator, dtype, rank, processes, trainer, facts)


def under_slurm() -> bool:
    """Whether srun started this process. Raises `UserError` where it was told `--ntasks`, which Lightning refuses."""
    try:
        return SLURMEnvironment.detect()
    except RuntimeError as error:
        raise UserError(str(error)) from None


def launched_from_outside() -> bool:
    """Whether torchrun or SLURM started one process per device; if not, Lightning starts them from the first."""
    return TorchElasticEnvironment.detect() or under_slurm()


def choose_devices(settings: HardwareConfig, accelerator: str, gpus: int) -> int:
    """Devices of this machine, checked against what a launcher started.

    Raises:
        UserError: where the two differ, or several machines have no launcher.
    """
    devices, nodes = hardware.choose_devices(settings.devices, accelerator, gpus), settings.num_nodes
    if TorchElasticEnvironment.detect():
        started = int(os.environ["WORLD_SIZE"])
        if settings.devices == 0:
            devices = int(os.environ["LOCAL_WORLD_SIZE"])
    elif under_slurm():
        started = SLURMEnvironment().world_size()
    elif nodes > 1:
        raise UserError(f"hardware.num_nodes={nodes} needs a launcher that starts the processes, torchrun or SLURM; "
                        "see docs/scaling.md")
    else:
        return devices
    if started != devices * nodes:
        raise UserError(f"the launcher started {started} processes, but hardware.devices={devices} times "
                        f"hardware.num_nodes={nodes} is {devices * nodes}; make them agree")
    return devices


def process_rank(devices: int) -> int:
    if TorchElasticEnvironment.detect():
        return int(os.environ["RANK"])
    if under_slurm():
        return SLURMEnvironment().global_rank()
    return int(os.environ.get("LOCAL_RANK", 0)) if devices > 1 else 0


def build_strategy(settings: HardwareConfig, processes: int, on_gpu: bool, freezes: bool) -> Strategy | str:
    """`hardware.strategy` in Lightning's terms. Raises `UserError` for FSDP without GPUs."""
    if settings.strategy == "fsdp":
        if not on_gpu:
            raise UserError("hardware.strategy=fsdp needs GPUs; use data_parallel")
        return FSDPStrategy(state_dict_type="full", auto_wrap_policy={Block})
    # ddp_spawn and ddp_fork lose metrics or steps in Lightning 2.6.6, so there is no name for them.
    if processes > 1 or settings.strategy == "data_parallel":
        return DDPStrategy(find_unused_parameters=freezes)  # what is frozen gets no gradient for a while
    return "auto"


def join_processes(rank: int, processes: int, on_gpu: bool) -> None:
    """Connect with the other processes before Lightning does, which then uses this connection."""
    if under_slurm():
        environment = SLURMEnvironment()
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0))))
    distributed.init_process_group("nccl" if on_gpu else "gloo", rank=rank, world_size=processes)


def peak_memory_gib() -> float:
    """Peak memory in GiB: what PyTorch's tensors took on the GPU, else what the process held in RAM."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**30
    return hardware.peak_memory_gib()
