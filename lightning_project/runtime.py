"""Accelerator, precision, threads: what the config asks for, in Lightning's terms."""

import atexit
import builtins
import logging
import os
import sys
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
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
from shared.models import has_depthwise, split_library_name

PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed", "fp64": "64-true"}
# The environment variable by which the first process tells the run folder to those that Lightning starts from it.
RUN_FOLDER = "LIGHTNING_PROJECT_RUN"


@dataclass(frozen=True)
class Runtime:
    """What a run computes on and in: `accelerator` is cpu or gpu, `dtype` that of the images, `rank` the number of this
    process among so many `processes`, `trainer` holds arguments of `Trainer`, and `facts` are for run.json."""

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

    def choose_workers(self, from_files: bool) -> int:
        """How many processes read training batches; with 0 this process does."""
        return hardware.choose_workers(self.config.hardware.workers, from_files, self.accelerator)

    def prepare_model(self, model: nn.Module) -> nn.Module:
        """`model` with synchronised BatchNorm and compilation where the config asks for them, and with its weights laid
        out as the images are, which changes no bit and saves reordering them in every step."""
        if self.processes > 1 and self.config.hardware.sync_batchnorm:
            module = "library" if split_library_name(self.config.model.name) else "layers"
            model = import_module(f"lightning_project.models.{module}").synchronise(model, self.accelerator == "gpu")
        model = model.to(memory_format=torch.channels_last)
        if self.config.hardware.compile:
            model.compile()
        return model

    def broadcast_text(self, text: str) -> str:
        """The `text` of the leader, in every process. All have to call this."""
        if self.processes > 1 and is_launched_from_outside():
            texts = [text]
            distributed.broadcast_object_list(texts)
            return texts[0]
        if self.leader:
            os.environ[RUN_FOLDER] = text  # Lightning starts the other processes later, and they inherit it
        return os.environ[RUN_FOLDER]


def build_runtime(config: Config) -> Runtime:
    """Choose accelerator, precision and devices, make PyTorch's global settings, and print the choice in one line.

    Raises:
        UserError: where the machine lacks what the config asks for.
    """
    settings, debug = config.hardware, config.debug
    if settings.threads:
        torch.set_num_threads(settings.threads)
    gpus = torch.cuda.device_count()
    hardware.tell_unused_gpu(settings.accelerator, gpus, "PyTorch")
    accelerator = hardware.choose_accelerator(settings.accelerator, gpus)
    on_gpu = accelerator == "gpu"
    # As in Keras, bf16 only where the GPU has it and does not emulate it, and TF32 on every GPU that has it.
    has_bf16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    precision = hardware.choose_precision(settings.precision, accelerator, has_bf16, has_depthwise(config.model.name))
    torch.set_float32_matmul_precision("high" if on_gpu else "highest")
    device = torch.cuda.get_device_name() if on_gpu else hardware.describe_cpu()
    dtype = torch.float64 if precision == "fp64" else torch.float32
    # Lightning's fp64 does not reach metrics, and a metric of torchmetrics forgets its `set_dtype` on another device.
    torch.set_default_dtype(dtype)
    torch.set_default_device(None)  # a notebook may have set another
    devices = choose_devices(settings, accelerator, gpus)
    processes = devices * settings.num_nodes
    require_equal_shares(config, processes)
    rank = find_rank(devices)
    strategy = build_strategy(settings, processes, on_gpu, config.model.freeze != "none")
    name = "one device" if strategy == "auto" else f"{type(strategy).__name__.removesuffix('Strategy')} on {processes}"
    say(f"PyTorch {torch.__version__} on {device} ({accelerator}), {precision}, {name}", leader=rank == 0)
    # Lightning prints there what our line has said, and warns of code of its own that no user can change.
    for source in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.distributed"):
        logging.getLogger(source).setLevel(logging.WARNING)
    # StepSampler goes on where the checkpoint is, without the state that Lightning looks for in a data loader.
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
        # shared.data.batches divides batches among processes, in the same way for both siblings.
        "use_distributed_sampler": False}
    if is_under_slurm():  # the launcher requeues jobs, for both siblings
        trainer["plugins"] = [SLURMEnvironment(auto_requeue=False)]
    if processes > 1:
        atexit.register(disconnect_processes)
        if is_launched_from_outside():
            connect_processes(rank, processes, on_gpu)
    facts = {"device": f"{device} ({accelerator})", "precision": precision, "devices": processes, "strategy": name,
             "threads": torch.get_num_threads(), "tf32": on_gpu and torch.backends.cudnn.allow_tf32}
    return Runtime(config, accelerator, dtype, rank, processes, trainer, facts)


def is_under_slurm() -> bool:
    """Whether SLURM's srun started this process.

    Raises:
        UserError: where srun was given `--ntasks`, which Lightning refuses.
    """
    try:
        return SLURMEnvironment.detect()
    except RuntimeError as error:
        raise UserError(str(error)) from None


def is_launched_from_outside() -> bool:
    """Whether torchrun or SLURM started a process for each device. Otherwise Lightning starts them from the first."""
    return TorchElasticEnvironment.detect() or is_under_slurm()


def choose_devices(settings: HardwareConfig, accelerator: str, gpus: int) -> int:
    """The number of devices on each machine.

    Raises:
        UserError: where a launcher started another number of processes; where there are several machines and no
            launcher, or several devices and no script to start again.
    """
    devices, nodes = hardware.choose_devices(settings.devices, accelerator, gpus), settings.num_nodes
    if TorchElasticEnvironment.detect():
        started = int(os.environ["WORLD_SIZE"])
        if settings.devices == 0:
            devices = int(os.environ["LOCAL_WORLD_SIZE"])
    elif is_under_slurm():
        started = SLURMEnvironment().world_size()
    elif nodes > 1:
        raise UserError(f"hardware.num_nodes={nodes} needs a launcher that starts the processes, torchrun or SLURM; "
                        "see docs/scaling.md")
    else:
        if devices > 1 and not has_script():
            raise UserError(f"hardware.devices={devices} starts this program once more for each device, and a notebook "
                            "or python -c cannot be started again; use hardware.devices=1 here, or run "
                            "lightning_project/train.py")
        return devices
    if started != devices * nodes:
        raise UserError(f"the launcher started {started} processes, but hardware.devices={devices} times "
                        f"hardware.num_nodes={nodes} is {devices * nodes}; make them agree")
    return devices


def has_script() -> bool:
    """Whether this program can be started again by the words of its command line, as Lightning does."""
    return not hasattr(builtins, "get_ipython") and not hasattr(sys, "ps1") and Path(sys.argv[0]).is_file()


def find_rank(devices: int) -> int:
    """The number of this process among all of the run, on all machines."""
    if TorchElasticEnvironment.detect():
        return int(os.environ["RANK"])
    if is_under_slurm():
        return SLURMEnvironment().global_rank()
    return int(os.environ.get("LOCAL_RANK", 0)) if devices > 1 else 0


def build_strategy(settings: HardwareConfig, processes: int, on_gpu: bool, freezes: bool) -> Strategy | str:
    """Lightning's strategy for `hardware.strategy`; `freezes` says whether parameters are frozen for a while.

    Raises:
        UserError: for FSDP without GPUs.
    """
    if settings.strategy == "fsdp":
        if not on_gpu:
            raise UserError("hardware.strategy=fsdp needs GPUs; use data_parallel")
        return FSDPStrategy(state_dict_type="full", auto_wrap_policy={Block})
    # ddp_spawn and ddp_fork lose metrics or steps in Lightning 2.6.6, so there is no name for them.
    if processes > 1 or settings.strategy == "data_parallel":
        return DDPStrategy(find_unused_parameters=freezes)  # frozen parameters have no gradients
    return "auto"


def connect_processes(rank: int, processes: int, on_gpu: bool) -> None:
    """Connect to the other processes. Lightning would do so later, and then uses this connection."""
    if is_under_slurm():
        environment = SLURMEnvironment()
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0))))
    distributed.init_process_group("nccl" if on_gpu else "gloo", rank=rank, world_size=processes)


def disconnect_processes() -> None:
    """Close a connection over gloo before Python ends, whoever opened it.

    Left open, it let one process abort in 2 of 40 trainings of two processes on a busy machine, after all the work was
    done. NCCL's is left to Lightning, since closing it may wait for processes that are gone.
    """
    if distributed.is_initialized() and distributed.get_backend() == "gloo":
        distributed.destroy_process_group()


def measure_peak_memory() -> float:
    """Peak memory in GiB: that of PyTorch's tensors on a GPU, otherwise that of this process in RAM."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**30
    return hardware.measure_peak_memory()
