"""Which Python runs which sibling: on a GPU machine each has an environment of its own (`make setup-gpu`)."""

import importlib.util
import os
import sys
from pathlib import Path

from shared.config import REPOSITORY
from shared.errors import UserError

PACKAGES = {"lightning": ("torch", "lightning", "torchmetrics", "torchvision"),
            "keras": ("tensorflow", "keras", "keras_cv")}


def variable(sibling: str) -> str:
    """The environment variable that names the interpreter of "lightning" or "keras"."""
    return f"TEMPLATE_{sibling.upper()}_PYTHON"


def installed(sibling: str) -> bool:
    """Whether this interpreter has all that the sibling needs. PyTorch alone may be there for another reason."""
    try:
        return all(importlib.util.find_spec(package) is not None for package in PACKAGES[sibling])
    except ImportError:  # imports may be blocked
        return False


def interpreter(sibling: str) -> str | None:
    """The Python that runs a sibling's programs; None where it is not installed.

    1. What the environment variable names, 2. this one, if it has what the sibling needs, 3. .venv-lightning or
    .venv-keras.
    """
    named = os.environ.get(variable(sibling))
    if named:  # a path must not depend on the folder in which a program is started; links lead out of environments
        return str(Path(named).expanduser().absolute()) if os.sep in named else named
    if installed(sibling):
        return sys.executable
    own = REPOSITORY / f".venv-{sibling}" / "bin" / "python"
    return str(own) if own.exists() else None


def required(sibling: str) -> str:
    """`interpreter`, or `UserError` where there is none."""
    found = interpreter(sibling)
    if found is None:
        raise UserError(f"the {sibling} sibling is not installed here, and there is no .venv-{sibling}; make setup or "
                        f"make setup-gpu installs it, or name its interpreter with {variable(sibling)}")
    return found


def not_installed(error: ModuleNotFoundError) -> UserError | None:
    """The error to show where a package of a sibling's is missing; None where it is another, or a part of one."""
    for sibling, packages in PACKAGES.items():
        if error.name in packages:
            return UserError(f"{error.name} is not installed here; install the {sibling} sibling (make setup, or make "
                             f"setup-gpu), or use the Python of an environment that has it, such as "
                             f".venv-{sibling}/bin/python")
    return None


def not_runnable(sibling: str, error: OSError) -> UserError:
    return UserError(f"{variable(sibling)}={interpreter(sibling)} cannot be run ({error.strerror}); name a Python "
                     "interpreter")
