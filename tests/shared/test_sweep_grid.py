"""All combinations of some values, trained one after the other or several at once."""

import json
import subprocess

import pytest

from shared.errors import UserError
from shared.machine.files import REPOSITORY
from shared.machine.interpreters import list_siblings
from shared.training.sweep import training
from shared.training.sweep.grid import list_points, run_grid, write_array
from tests.shared.sweeps import Stub, install_stub


@pytest.fixture
def stub(tmp_path, monkeypatch) -> Stub:
    return install_stub(tmp_path, monkeypatch)


def points(*words: str, siblings: tuple[str, ...] = list_siblings()):
    return list_points([*words, "output_dir=runs"], siblings)


def test_every_combination_in_every_sibling():
    found = points("seed=0,1,2", "model.name=resnet18,vit_tiny")
    assert [(one.sibling, one.config.seed, one.config.model.name) for one in found] == [
        (sibling, seed, model) for seed in (0, 1, 2) for model in ("resnet18", "vit_tiny")
        for sibling in list_siblings()]
    # Seeds share a group, which shared.compare --seeds takes; models do not.
    assert {one.config.group for one in found} == {"quickstart_model.name=resnet18", "quickstart_model.name=vit_tiny"}
    assert points("seed=0,1")[0].config.group == "quickstart_grid"


def test_a_comma_within_a_list_separates_no_values():
    found = points("train.metrics=[top5,macro_f1],[]", siblings=list_siblings()[:1])
    assert [one.config.train.metrics for one in found] == [["top5", "macro_f1"], []]


@pytest.mark.parametrize(("words", "message"), [
    (["sede=0,1"], "unknown key 'sede'; did you mean 'seed'?"),
    (["optimizer.lr=0.1,-1"], "optimizer.lr=-1.0 is out of range"),
    (["seed=0,0"], "seed names a value twice"),
    (["experiment=a,b"], "experiment says where runs are"),
    (["output_dir=a,b"], "output_dir says where runs are"),
    (["configs/nothing.yaml", "seed=0,1"], "configs/nothing.yaml' does not exist"),
])
def test_a_mistake_is_told_before_the_first_training(words, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        list_points(words, list_siblings())


def test_what_was_trained_is_not_trained_again(stub, capsys):
    grid = points("seed=0,1")
    assert run_grid(grid, at_once=2)
    assert len(stub.calls) == len(grid)
    printed = capsys.readouterr()
    assert printed.out.count("90.00 %") == len(grid)
    assert "compare: python -m shared.compare --seeds --output-dir runs --group quickstart_grid" in printed.out
    assert f"1 of {len(grid)}: {grid[0].sibling} seed=0: val/loss" in printed.err
    assert run_grid(points("seed=0,1,2"), at_once=1)
    assert len(stub.calls) == len(grid) + len(list_siblings())
    assert run_grid(points("seed=0,1", "train.epochs=5"), at_once=1)  # which are other trainings
    assert len(stub.calls) == 2 * len(grid) + len(list_siblings())


def test_a_training_that_fails_is_told_and_the_others_go_on(stub, monkeypatch, capsys):
    monkeypatch.setenv("FAIL_ABOVE", "0.5")
    grid = points("optimizer.lr=0.1,1,0.2", siblings=list_siblings()[:1])
    assert not run_grid(grid, at_once=1)
    printed = capsys.readouterr()
    assert "optimizer.lr=1 failed: the loss is nan at step 7 (see " in printed.err
    assert printed.out.count("90.00 %") == 2
    assert printed.out.count("failed") == 1


def test_so_many_at_once_and_no_more(stub, monkeypatch):
    monkeypatch.setenv("STUB_SECONDS", "0.05")
    most, running = 0, []
    begin = training.Training.start

    def start(self):
        nonlocal most
        begin(self)
        running.append(self.process)
        most = max(most, sum(process.poll() is None for process in running))
    monkeypatch.setattr(training.Training, "start", start)
    assert run_grid(points("seed=0,1,2,3", siblings=list_siblings()[:1]), at_once=3)
    assert most == 3


def test_a_long_training_is_told_of_in_between(stub, monkeypatch, capsys):
    monkeypatch.setattr(training, "NEWS", 0.1)
    monkeypatch.setenv("STUB_SECONDS", "0.3")
    assert run_grid(points("seed=0", siblings=list_siblings()[:1]), at_once=1)
    assert "at epoch 1 of 10\n" in capsys.readouterr().err


def test_the_script_of_a_job_array_starts_each_training_through_the_launchers(tmp_path):
    grid = points("seed=0,1", "tracking.tags=[a b]")
    script = tmp_path / "grid.sbatch"
    write_array(grid, script)
    assert f"#SBATCH --array=0-{len(grid) - 1}\n" in script.read_text()
    launchers = tmp_path / "configs" / "launchers"
    launchers.mkdir(parents=True)
    for sibling in list_siblings():
        (launchers / f"slurm_{sibling}.sbatch").write_text(
            "python3 -c 'import json, sys; print(json.dumps(sys.argv[1:]))' \"${BASH_SOURCE[0]}\" \"$@\"")

    def run(number: int) -> subprocess.CompletedProcess:
        return subprocess.run(["bash", script], env={"SLURM_SUBMIT_DIR": str(tmp_path), "PATH": "/usr/bin:/bin",
                              "SLURM_ARRAY_TASK_ID": str(number)}, capture_output=True, text=True, check=False)
    for number, point in enumerate(grid):
        assert json.loads(run(number).stdout) == [f"configs/launchers/slurm_{point.sibling}.sbatch", *point.words]
    assert (run(99).returncode, run(99).stderr) == (2, "error: there is no training number 99\n")
    for line in ("--signal=B:USR1@120", "--requeue", "--open-mode=append"):  # as the launchers ask for
        assert f"#SBATCH {line}\n" in script.read_text()
        assert line in (REPOSITORY / "configs" / "launchers" / "slurm_lightning.sbatch").read_text()
