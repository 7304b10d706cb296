"""What a run was made with: versions of packages and the revision of this repository."""

import platform
import subprocess
from importlib import metadata
from typing import Any

from shared.machine.files import REPOSITORY

# Packages whose version can change a result.
PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "tensorflow", "keras", "keras-cv", "numpy", "scipy",
            "scikit-learn", "pillow", "wandb", "omegaconf")


def list_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def read_git_state() -> dict[str, Any]:
    """Revision of the repository and whether files differ from it; None where this is no git checkout."""
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=True,
                              timeout=10).stdout.strip()
    try:
        return {"revision": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"revision": None, "dirty": None}
