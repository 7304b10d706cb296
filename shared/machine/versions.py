"""The software that a run was made with: versions of packages and the revision of this repository."""

import platform
import subprocess
from importlib import metadata
from typing import Any

from shared.machine.files import REPOSITORY

# Packages whose version can change a result.
PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "tensorflow", "jax", "keras", "keras-cv", "numpy",
            "scipy", "scikit-learn", "pillow", "wandb", "omegaconf")


def list_versions(more: tuple[str, ...] = ()) -> dict[str, str]:
    """The versions of Python and of those of PACKAGES and of `more` that are installed."""
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, *more):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def read_git_state() -> dict[str, Any]:
    """The repository's `revision`, and whether files are `dirty`, that is, differ from it; None without git."""
    def run_git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=True,
                              timeout=10).stdout.strip()
    try:
        return {"revision": run_git("rev-parse", "HEAD"), "dirty": bool(run_git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"revision": None, "dirty": None}
