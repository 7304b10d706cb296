"""Which siblings are here, and which Python runs which: on a GPU machine each has an environment of its own
(`make setup-gpu`)."""

import importlib.util
import os
import sys

from shared.errors import UserError
from shared.machine.files import REPOSITORY

PACKAGES = {"lightning": ("torch", "lightning", "torchmetrics", "torchvision"),
            "keras": ("tensorflow", "keras", "keras_cv")}


def list_siblings() -> tuple[str, ...]:
    """The siblings whose folders are here. Whoever needs only one of the two may delete the other's folder."""
    return tuple(name for name in PACKAGES if (REPOSITORY / f"{name}_project" / "train.py").is_file())


def name_variable(sibling: str) -> str:
    """The environment variable that names the interpreter of "lightning" or "keras"."""
    return f"TEMPLATE_{sibling.upper()}_PYTHON"


def is_installed(sibling: str) -> bool:
    """Whether the sibling's folder is here, and in this interpreter all that it needs. PyTorch alone may be there for
    another reason."""
    try:
        return sibling in list_siblings() and all(importlib.util.find_spec(package) for package in PACKAGES[sibling])
    except ImportError:  # imports may be blocked
        return False


def find_interpreter(sibling: str) -> str | None:
    """The Python that runs a sibling's programs; None where it is not installed.

    1. What the environment variable names, 2. this one, if it has what the sibling needs, 3. .venv-lightning or
    .venv-keras.
    """
    named = os.environ.get(name_variable(sibling))
    if named:  # a path must not depend on the folder in which a program is started; links lead out of environments
        return os.path.abspath(os.path.expanduser(named)) if os.sep in named else named
    if is_installed(sibling):
        return sys.executable
    own = REPOSITORY / f".venv-{sibling}" / "bin" / "python"
    return str(own) if own.exists() else None


def require_interpreter(sibling: str) -> str:
    """`find_interpreter`, or `UserError` where there is none."""
    found = find_interpreter(sibling)
    if found is None:
        raise UserError(f"the {sibling} sibling is not installed here, and there is no .venv-{sibling}; make setup or "
                        f"make setup-gpu installs it, or name its interpreter with {name_variable(sibling)}")
    return found


def list_variables() -> dict[str, str]:
    """The environment variables of a sibling's program, so that it runs this repository's code whichever clone its
    environment was installed from."""
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path}


def explain_missing_package(error: ModuleNotFoundError) -> UserError | None:
    """The error to show where a package of a sibling's is missing; None where it is another, or a part of one."""
    for sibling, packages in PACKAGES.items():
        if error.name in packages:
            return UserError(f"{error.name} is not installed here; install the {sibling} sibling (make setup, or make "
                             f"setup-gpu), or use the Python of an environment that has it, such as "
                             f".venv-{sibling}/bin/python")
    return None


def explain_not_runnable(sibling: str, error: OSError) -> UserError:
    return UserError(f"{name_variable(sibling)}={find_interpreter(sibling)} cannot be run ({error.strerror}); name a "
                     "Python interpreter")
