"""What the machine offers, found out without a framework, and the choices that both siblings must make alike."""

import os
import platform
import shutil
import sys
import time
from pathlib import Path

from shared.errors import UserError


def describe_cpu() -> str:
    """The CPU's name and its number of threads."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} threads"


def list_bf16_instructions() -> list[str]:
    """The CPU's instructions for bfloat16, as Linux names them."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    return [name for name in ("avx512_bf16", "amx_bf16") if name in flags]


def cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16; without them, bf16 is slower than fp32."""
    return bool(list_bf16_instructions())


def choose_precision(wanted: str, accelerator: str, gpu_has_bf16: bool, depthwise: bool) -> str:
    """`hardware.precision`, with a decision in place of `auto`: fp32, bf16, fp16 or fp64.

    `depthwise` says whether the model has depthwise convolutions. On CPUs both frameworks compute them with oneDNN,
    which has no kernels of their own for some of their gradients in bf16: docs/results.md#bf16-on-a-cpu.

    Raises:
        UserError: for fp16 without a GPU, where the frameworks would silently compute in something else.
    """
    if wanted == "fp16" and accelerator == "cpu":
        raise UserError("hardware.precision=fp16 needs a GPU and none is used here; use bf16 or fp32")
    if wanted != "auto":
        return wanted
    return "bf16" if (gpu_has_bf16 if accelerator == "gpu" else cpu_has_bf16() and not depthwise) else "fp32"


def has_nvidia_gpu() -> bool:
    """Whether the operating system knows an NVIDIA GPU, whether or not a framework can use it."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


def tell_unused_gpu(accelerator: str, gpus: int, package: str) -> None:
    """Say where training goes on without a GPU that is here, because this build of the framework finds none."""
    if accelerator == "auto" and not gpus and has_nvidia_gpu() and os.environ.get("CUDA_VISIBLE_DEVICES") not in (
            "", "-1"):
        print(f"this machine has an NVIDIA GPU that {package} does not find, so that the CPU trains; make setup-gpu "
              "installs what it needs, hardware.accelerator=gpu insists on it", file=sys.stderr, flush=True)


def has_tpu() -> bool:
    """Whether this machine shows signs of a TPU. It does not try to connect to one, since that can wait for ever."""
    names = ("TPU_NAME", "TPU_WORKER_HOSTNAMES", "TPU_CONFIG", "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS")
    devices = [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")]  # older and newer TPUs
    return any(os.environ.get(name) for name in names) or bool(devices)


def choose_accelerator(wanted: str, gpus: int, tpu: bool = False) -> str:
    """`hardware.accelerator`, with a decision in place of `auto`: cpu, gpu or tpu. `gpus` is how many there are.

    Raises:
        UserError: where a GPU or TPU is wanted and missing.
    """
    if wanted == "tpu" and not tpu:
        raise UserError("hardware.accelerator=tpu, but there is no TPU here that this sibling can use (no /dev/accel*, "
                        "TPU_NAME or the like); run on a TPU machine, see configs/launchers, or use "
                        "hardware.accelerator=cpu")
    if tpu and wanted in ("auto", "tpu"):
        return "tpu"
    if wanted == "gpu" and gpus == 0:
        raise UserError("hardware.accelerator=gpu, but the framework finds no GPU; install its driver and GPU build, "
                        "or use hardware.accelerator=cpu")
    return "gpu" if gpus and wanted != "cpu" else "cpu"


def choose_devices(wanted: int, accelerator: str, available: int) -> int:
    """`hardware.devices`, with all that are available in place of 0, or one CPU.

    Raises:
        UserError: where fewer are available than wanted.
    """
    if accelerator == "cpu":
        return wanted or 1
    if wanted > available:
        raise UserError(f"hardware.devices={wanted}, but the framework finds {available} of kind {accelerator}; lower "
                        "it, or set 0 for all there are")
    return wanted or available


def count_cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cores(count: int) -> None:
    """Let this process, and those that it starts, use so many of its CPU cores, where the system can be told so."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def choose_workers(wanted: int, from_files: bool, accelerator: str) -> int:
    """How many processes or threads read training batches, where `hardware.workers` is `wanted`; with 0 the training
    process reads them itself.

    Indexing arrays in memory is faster than a CPU trains on them, so there another process would only take cores away.
    """
    if wanted >= 0:
        return wanted
    return min(8, count_cores()) if from_files else (2 if accelerator == "gpu" else 0)


def measure_shared_memory() -> float:
    """The free bytes of the shared memory by which processes hand over arrays; infinite where it is not limited."""
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:  # other systems than Linux
        return float("inf")


def measure_free_memory() -> float:
    """The bytes of memory that a process can still have, of the machine and of its container; infinite where the system
    does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # other systems than Linux
        return float("inf")
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    limits = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    try:
        most, used = (int(file.read_text(encoding="utf-8")) for file in limits)
    except (OSError, ValueError):  # no container, or one without a limit, which says "max"
        return free
    return min(free, most - used)


def measure_cpu_seconds() -> float:
    """The CPU time that this process has used, and those that it has started and that still run; NaN where the system
    tells nothing of these."""
    try:
        if not Path("/proc/self/task").is_dir():
            return float("nan")
        lists = [file.read_text(encoding="utf-8") for file in Path("/proc/self/task").glob("*/children")]
        children = [Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                    for pid in " ".join(lists).split()]
    except OSError:
        return float("nan")
    ticks = sum(int(fields[11]) + int(fields[12]) for fields in children)  # fields 14 and 15; the second is the name
    return time.process_time() + (ticks / os.sysconf("SC_CLK_TCK") if ticks else 0)


def measure_peak_memory(of_children: bool = False) -> float:
    """The largest resident memory of this process so far, in GiB, or of the largest one that it has started and that
    has ended; NaN on Windows."""
    try:
        import resource
    except ImportError:  # Windows has no such counter
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20  # bytes there, KiB on Linux
