"""What tests need of the machine: which siblings are installed, and a process for each.

PyTorch and TensorFlow in one process can abort it, so pytest's own process imports neither: a test hands a function to
the sibling's process, which is started once and imports its framework once.
"""

import contextlib
import importlib.util
import io
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.machine.interpreters import PACKAGES, is_installed, list_siblings

REPOSITORY = Path(__file__).resolve().parent.parent
# The programs that tests start run this repository's code, even where the environment was installed from another clone.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
ABSENT = [name for name in PACKAGES if not is_installed(name)]
needs_both = pytest.mark.skipif(bool(ABSENT), reason=f"needs both siblings; not installed: {', '.join(ABSENT)}")
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="the extra jax is not installed")
DELETED = [f"{name}_project" for name in PACKAGES if name not in list_siblings()]
needs_both_folders = pytest.mark.skipif(bool(DELETED), reason=f"needs both siblings; not here: {', '.join(DELETED)}")

SMALL = {"resnet18": ((1, 1, 0, 0), False)}  # a ResNet of 300,000 parameters, in place of `shared.models.RESNETS`


def needs(sibling: str) -> pytest.MarkDecorator:
    """A mark that skips a test where the sibling cannot run."""
    return pytest.mark.skipif(not is_installed(sibling), reason=f"the {sibling} sibling is not installed")


def pytest_configure() -> None:
    """Let the programs that tests start be interrupted, even where a shell runs the tests in its background and has
    them ignore SIGINT, which every program started from them would inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run in several processes, `pytest --numprocesses 2`, each sibling's are in one of them, which imports
    its framework once, and all others of a module are together.

    By names, because pytest-xdist 3.8 does not see its own marks of groups under pytest 9.2 (its issue 1386).
    """
    from xdist.scheduler import LoadScopeScheduling

    class BySibling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            found = re.search(rf"[\[-]({'|'.join(PACKAGES)})[\]-]", nodeid)
            return found[1] if found else nodeid.partition("::")[0]
    return BySibling(config, log)


def prepare_process(sibling: str) -> None:
    """Let data loaders start their processes as in a user's training, not as this process was started; and let
    TensorFlow use one thread, which it must be told before it computes anything."""
    multiprocessing.set_start_method(None, force=True)
    if sibling == "keras" and is_installed("keras"):
        importlib.import_module("keras_project")
        importlib.import_module("tensorflow").config.threading.set_intra_op_parallelism_threads(1)


class Sibling:
    """A sibling's name and its process."""

    def __init__(self, name: str):
        self.name = name
        self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), prepare_process, (name,))

    def call(self, function: Callable, *arguments: Any) -> Any:
        """`function(sibling name, *arguments)`, run in the sibling's process; what it raises is raised here."""
        return self.pool.submit(function, self.name, *arguments).result()


@pytest.fixture(scope="session", params=list_siblings())
def sibling(request: pytest.FixtureRequest) -> Iterator[Sibling]:
    name = request.param
    if not is_installed(name):
        pytest.skip(f"the {name} sibling is not installed")
    here = Sibling(name)
    yield here
    here.pool.shutdown()


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = Path(os.environ.get("TEMPLATE_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder.name}; name their folder in TEMPLATE_TEST_DATA")
    return folder


def train(sibling: str, folder: str, *words: str, whole_model: bool = False,
          stream: Callable[[], io.StringIO] = io.StringIO) -> dict[str, Any]:
    """Train in this process with small defaults; result, what was printed, and the error instead of raising it.

    Few images, one thread of it all and a small ResNet, so that a run takes a second or two. The scores at its end and
    their pictures, which would take as long, are left out with it.
    """
    from unittest import mock

    from shared.config import parse_config
    from shared.errors import extract_user_message
    from shared.models import RESNETS
    from shared.training.recorder import Recorder

    config = parse_config([
        f"output_dir={folder}", "tracking.mode=disabled", "tracking.log_every_steps=1", "hardware.precision=fp32",
        "hardware.threads=1", "dataset.limit_train=220", "dataset.limit_test=60", "train.epochs=2",
        "train.batch_size=32", "train.monitor=val/accuracy", "train.label_smoothing=0", "optimizer.lr=0.01", *words,
    ], "train.py", "")
    module = importlib.import_module(f"{sibling}_project.train")
    out, err = stream(), stream()
    result, error, kind = None, None, None
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        if not whole_model:
            stack.enter_context(mock.patch.dict(RESNETS, SMALL))
            stack.enter_context(mock.patch.object(Recorder, "write_scores", return_value=({}, [])))
        try:
            result = module.train(config)
        except (Exception, KeyboardInterrupt, SystemExit) as raised:
            error, kind = extract_user_message(raised) or repr(raised), type(raised).__name__
    runs = sorted(Path(folder).glob(f"*/{sibling}_*"), key=lambda path: path.stat().st_mtime)
    return {"result": result, "error": error, "kind": kind, "out": out.getvalue(), "err": err.getvalue(),
            "run": runs[-1] if runs else None}
