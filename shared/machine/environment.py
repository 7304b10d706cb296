"""Environment variables that change what a framework computes: refused, or recorded with the run.

A setting that the config has is made from the config by each sibling, whatever the environment says.
"""

import os

from shared.errors import UserError

# By what the names begin with, those that change numbers: how operations are computed, in which precision, compiled or
# not. `shared.compare` takes runs that differ in one of them for different experiments.
NUMERICS = ("TF_ENABLE_", "TF_DISABLE_", "TF_XLA_", "TF_DETERMINISTIC_", "TF_CUDNN_", "TF_USE_", "XLA_", "ONEDNN_",
            "DNNL_", "MKL_", "NVIDIA_TF32_OVERRIDE", "TORCH_", "TORCHDYNAMO_", "TORCHINDUCTOR_", "CUBLAS_", "CUDNN_",
            "ATEN_", "OPENBLAS_")
# Those that change the speed, and numbers by the order of sums at most.
SPEED = ("OMP_", "KMP_", "GOMP_", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_", "TF_GPU_", "TF_FORCE_GPU_",
         "PYTORCH_", "CUDA_", "NCCL_", "MALLOC_", "LD_PRELOAD")
# Where files are, what is printed, and what a sibling sets itself, or Lightning when it is imported.
NEITHER = ("TF_USE_LEGACY_KERAS", "PYTORCH_NVML_BASED_CUDA_CHECK", "TORCH_HOME", "TORCH_LOGS", "TORCH_EXTENSIONS_DIR",
           "TORCHINDUCTOR_CACHE_DIR", "TORCH_NCCL_", "CUDA_HOME", "CUDA_PATH", "CUDA_VERSION", "NCCL_VERSION")
# What was set when this process began. A framework may set some of them when it is imported.
AT_START = {name: value for name, value in sorted(os.environ.items())
            if name.startswith(NUMERICS + SPEED) and not name.startswith(NEITHER)}


def changes_numbers(name: str) -> bool:
    """Whether the variable changes what is computed, and not only how fast."""
    return name.startswith(NUMERICS) and not is_of_speed(name)


def is_of_speed(name: str) -> bool:
    """Whether the variable changes only how fast something is computed."""
    return name.startswith(SPEED)


def refuse_variables(*starts: str) -> None:
    """Raise `UserError` where a variable is set that begins so, by which the framework would change the training
    without the config knowing of it."""
    for name in sorted(os.environ):
        if name.startswith(starts):
            raise UserError(f"the environment variable {name} changes the training without the config's knowledge; "
                            "unset it, and set a key of the config, which --help lists")
