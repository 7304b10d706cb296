"""The entry points as a user calls them: one line and exit status 2 for a mistake, before any framework is imported."""

import json
import os
import subprocess
import sys

import pytest

from shared.config import Config, command, parse_config
from shared.errors import StoppedError, UserError, extract_user_message
from shared.machine.ending import report_errors
from shared.machine.files import REPOSITORY
from shared.machine.interpreters import list_siblings

# Python imports this module at its start, so that the entry point runs as it is and still cannot load a framework.
BLOCKER = """
import json, os, sys
BLOCKED = ("torch", "torchvision", "lightning", "tensorflow", "keras", "keras_cv")

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise RuntimeError(f"{name} was imported")

sys.meta_path.insert(0, Blocker())
"""
HEAVY = ("numpy", "scipy", "yaml", "omegaconf", "antlr4", "wandb", "sklearn", "PIL", "torch", "tensorflow", "keras",
         "lightning", "shared.data.batches", "shared.weights")
ENTRIES = [f"{sibling}_project/train.py" for sibling in list_siblings()]
EVALUATE = [f"{sibling}_project/evaluate.py" for sibling in list_siblings()]


@pytest.fixture
def call(tmp_path):
    """Runs an entry point from another folder, with no framework to be had."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(BLOCKER)
    path = os.pathsep.join([str(tmp_path / "hook"), str(REPOSITORY)])

    def run(entry, *words, **options):
        return subprocess.run([sys.executable, str(REPOSITORY / entry), *words], cwd=tmp_path, capture_output=True,
                              text=True, timeout=60, env={**os.environ, "PYTHONPATH": path}, **options)
    return run


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(("words", "hint"), [
    (["train.epoch=3"], "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
    (["train.epochs=2", "optimizer.lr=nan"], "optimizer.lr=nan is out of range"),
    (["configs/nope.yaml"], "config file 'configs/nope.yaml' does not exist"),
    (["schedule.warmup_epochs=5", "train.epochs=2"], "is longer than train.epochs=2"),
])
def test_a_mistake_is_one_line_and_exit_status_2(call, entry, words, hint):
    done = call(entry, *words)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert hint in done.stderr


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_right_config_goes_on_to_the_framework(call, entry):
    done = call(entry, "train.epochs=1")
    assert "was imported" in done.stderr  # the blocker works, so that the test above means something


@pytest.mark.parametrize("entry", [*ENTRIES, *EVALUATE])
def test_help_imports_nothing_heavy(call, entry, tmp_path):
    hook = tmp_path / "hook" / "sitecustomize.py"
    hook.write_text(hook.read_text() + "import atexit\natexit.register(lambda: open('modules', 'w').write(json.dumps("
                                       "list(sys.modules))))\n")
    done = call(entry, "--help")
    assert done.returncode == 0
    assert f"usage: python {entry}" in done.stdout
    assert "  train.epochs=" in done.stdout
    assert done.stderr == ""
    loaded = json.loads((tmp_path / "modules").read_text())
    assert "shared.config" in loaded
    allowed = {"numpy"} if "evaluate" in entry else set()  # whose signatures name it
    assert {name for name in loaded if name in HEAVY} <= allowed


@pytest.mark.parametrize("entry", ENTRIES)
def test_print_config_stops_before_the_framework(call, entry):
    done = call(entry, "seed=5", "--print-config")
    assert done.returncode == 0, done.stderr
    assert "seed: 5\n" in done.stdout
    assert "epochs: " in done.stdout


def test_evaluate_needs_a_source_first(call):
    for words in ([], ["train.epochs=2"], ["--print-confg"]):
        done = call(EVALUATE[0], *words)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
    assert "name a run folder or a .safetensors file first" in call(EVALUATE[0]).stderr
    assert f"usage: python {EVALUATE[0]} RUN " in call(EVALUATE[0], "-h").stdout


@pytest.mark.parametrize("words", [(ENTRIES[0], "init_from=nowhere"), (EVALUATE[-1], "nowhere")])
def test_weights_that_are_not_there_are_told_before_a_framework_is_imported(call, words):
    done = call(*words)
    assert done.returncode == 2
    assert done.stderr == "error: nowhere does not exist; name a run folder that has finished an epoch, or a " \
                          ".safetensors file\n"


@pytest.fixture
def words(monkeypatch):
    def given(*words):
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
    return given


def test_evaluate_takes_the_config_of_the_run_and_overrides_it(words, tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 3\ntrain: {epochs: 7}\n")
    (tmp_path / "best.safetensors").touch()
    seen = []
    words(str(tmp_path), "train.epochs=8")
    command.run_command_on(lambda config, source: seen.append((config, source)), "keras", "evaluate.py", "Evaluate.")
    config, source = seen[0]
    assert (config.seed, config.train.epochs, source) == (3, 8, str(tmp_path))


def test_evaluate_takes_another_config_where_one_is_named(words, tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    (tmp_path / "best.safetensors").touch()
    (tmp_path / "other.yaml").write_text("seed: 4\n")
    seen = []
    words(str(tmp_path), str(tmp_path / "other.yaml"))
    command.run_command_on(lambda config, source: seen.append(config.seed), "keras", "evaluate.py", "Evaluate.")
    assert seen == [4]


def test_run_hands_the_config_to_the_work(words):
    words("seed=9")
    seen = []
    command.run_command(seen.append, "keras", "train.py", "Train.")
    assert seen == [parse_config(["seed=9"], "", "")]


@pytest.mark.parametrize(("error", "status", "text"), [
    (UserError("what is wrong"), 2, "error: what is wrong\n"),
    (UserError("two\nlines"), 2, "error: two lines\n"),
    (StoppedError("saved", 15), 143, "\nsaved\n"),
    (KeyboardInterrupt(), 130, "\nstopped; resume=auto goes on from the last checkpoint, if there is one\n"),
])
def test_what_work_raises_becomes_one_line_and_a_status(words, capsys, error, status, text):
    def work(config: Config) -> None:
        raise error
    words("seed=9")
    with pytest.raises(SystemExit) as left:
        command.run_command(work, "keras", "train.py", "Train.")
    assert left.value.code == status
    assert capsys.readouterr().err == text


def test_what_cannot_be_resumed_does_not_say_so(capsys):
    def work() -> None:
        raise KeyboardInterrupt
    with pytest.raises(SystemExit):
        report_errors(work)
    assert capsys.readouterr().err == "\nstopped\n"


@pytest.mark.parametrize(("package", "sibling"), [("torch", "lightning"), ("keras_cv", "keras")])
def test_a_framework_that_is_not_installed_is_one_line(words, capsys, package, sibling):
    def work(config: Config) -> None:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)
    words("seed=9")
    with pytest.raises(SystemExit) as left:
        command.run_command(work, "keras", "train.py", "Train.")
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {package} is not installed here; install the {sibling} sibling (make setup")
    assert said.count("\n") == 1


@pytest.mark.parametrize("bug", [
    ZeroDivisionError("a mistake of ours"), ModuleNotFoundError("missing", name="omegacon"),
    ModuleNotFoundError("missing", name="torch.nothing")])
def test_a_bug_keeps_its_traceback(words, bug):
    def work(config: Config) -> None:
        raise bug
    words("seed=9")
    with pytest.raises(type(bug)):
        command.run_command(work, "keras", "train.py", "Train.")


@pytest.mark.parametrize("text", [
    # As torch re-raises what a data worker raised, and as TensorFlow tells what a Python function raised.
    "Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File \"x.py\"\n"
    "shared.errors.UserError: cat.jpg: cannot be read\n",
    "{{function_node __wrapped__IteratorGetNext}} shared.errors.UserError: cat.jpg: cannot be read\nTraceback (most "
    "recent call last):\n  File \"x.py\"\n\n\t [[{{node PyFunc}}]]",
])
def test_a_workers_error_keeps_our_line(text):
    assert extract_user_message(RuntimeError(text)) == "cat.jpg: cannot be read"
    no_compiler = RuntimeError("InductorError: InvalidCxxCompiler: None")
    assert extract_user_message(no_compiler).startswith("hardware.compile=true")
    assert extract_user_message(RuntimeError("something else")) is None
