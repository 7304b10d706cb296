"""A search: what each trial runs, what becomes of it, and that a sweep which was killed goes on.

The trainings are stand-ins that write what a run leaves; tests/siblings/test_sweep.py has real ones.
"""

import contextlib
import io
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from shared.config import load_config
from shared.errors import UserError
from shared.machine.interpreters import list_siblings
from shared.training.sweep import studies, training
from shared.training.sweep.definition import Sweep
from shared.training.sweep.results import correlate_ranks
from shared.training.sweep.search import run_search
from tests.conftest import needs_both_folders
from tests.shared.sweeps import FILE, Stub, install_stub, is_running, open_again, read, run, states

optuna = pytest.importorskip("optuna")
from shared.training.sweep.sampler import SharedSampler  # noqa: E402 (it imports Optuna)

ONE = list_siblings()[:1]


@pytest.fixture
def stub(tmp_path, monkeypatch) -> Stub:
    return install_stub(tmp_path, monkeypatch)


# The search

class Searched(NamedTuple):
    """A finished sweep of eight trials, its folder, what it called, and what it printed."""
    sweep: Sweep
    studies: dict[str, "optuna.Study"]
    folder: Path
    calls: list[dict[str, str]]
    out: str
    err: str


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    folder, out, err = tmp_path_factory.mktemp("searched"), io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        stub = install_stub(folder, patch)
        sweep = read(trials=8)
        found = run(sweep)
        return Searched(sweep, found, folder / "runs" / "mine", stub.calls, out.getvalue(), err.getvalue())


def test_both_siblings_try_the_same_values_one_after_the_other(searched):
    found = searched.studies
    assert [states(study) for study in found.values()] == [["COMPLETE"] * 8] * len(found)
    tried = [[trial.params for trial in study.get_trials()] for study in found.values()]
    assert all(params == tried[0] for params in tried)
    assert len({str(params) for params in tried[0]}) == 8
    assert [call["sibling"] for call in searched.calls] == [*list_siblings()] * 8
    call = searched.calls[-1]
    assert float(call["optimizer.lr"]) == tried[0][7]["optimizer.lr"]
    assert (call["experiment"], call["output_dir"], call["resume"]) == ("mine_007", "runs/mine", "auto")
    # The value is the metric of the best epoch, each of which was reported.
    for study in found.values():
        for trial in study.get_trials():
            assert sorted(trial.intermediate_values) == [1, 2, 3]
            assert trial.value == min(trial.intermediate_values.values())
    lines = searched.err.splitlines()
    assert sum(" of 8, " in line and "optimizer.lr=" in line for line in lines) == 8 * len(found)
    assert sum("at epoch 3 of 3, finished after" in line for line in lines) == 8 * len(found)


def test_a_finished_sweep_trains_nothing_and_can_be_made_longer(stub):
    run(read(trials=2), at_once=3)
    count = len(stub.calls)
    run(read(trials=2))
    assert len(stub.calls) == count
    found = run(read(trials=3))
    assert len(stub.calls) == count + len(found)


def search_in_memory(sweep: Sweep, trials: int, losses: dict[str, Callable[[float], float]],
                     restart: bool) -> list[dict]:
    """The values of so many trials whose metric is known at once; with `restart`, by a new sampler for each."""
    found = {name: optuna.create_study(study_name=name) for name in losses}
    for number in range(trials):
        for name, study in found.items():
            if restart or number == 0:
                study.sampler = SharedSampler(sweep.seed)
                study.sampler.studies = list(found.values())
            trial = study.ask()
            studies.suggest_words(sweep, trial)
            study.tell(trial, losses[name](trial.params["optimizer.lr"]))
    tried = [[trial.params for trial in study.get_trials()] for study in found.values()]
    assert all(params == tried[0] for params in tried)
    return tried[0]


def test_the_search_follows_each_siblings_results_in_turn_whether_it_was_killed_or_not(stub):
    # One sibling prefers a rate of 0.005, the other of 0.2: after the random trials each has the turn at every second.
    losses = {name: lambda rate, best=best: abs(np.log10(rate / best)) for name, best in (("a", 0.005), ("b", 0.2))}
    tried = search_in_memory(read(), 40, losses, restart=False)
    rates = np.log10([params["optimizer.lr"] for params in tried])
    for turn, (own, other) in enumerate(((0.005, 0.2), (0.2, 0.005))):
        mine = rates[20 + turn::2]
        assert np.median(np.abs(mine - np.log10(own))) < np.median(np.abs(mine - np.log10(other))) / 2
    assert search_in_memory(read(), 14, losses, restart=True) == tried[:14]


def test_trials_that_fall_behind_are_pruned_by_sigterm(stub, monkeypatch, capsys):
    monkeypatch.setenv("STUB_SECONDS", "0.5")
    text = FILE.replace("prune: false", "prune: true\nprune_startup: 1\nprune_warmup: 1")
    found = run(read(text, siblings=list(ONE)))[ONE[0]]
    pruned = [trial for trial in found.get_trials() if trial.state.name == "PRUNED"]
    assert pruned
    for trial in pruned:
        assert list(trial.intermediate_values) == [1, 2]  # not before the warm-up
        before = [other.intermediate_values[2] for other in found.get_trials()[:trial.number]
                  if other.state.name == "COMPLETE"]
        assert trial.value > np.median(before)
    assert all("result.json" not in os.listdir(trial.user_attrs["run"]) for trial in pruned)
    printed = capsys.readouterr()
    assert printed.err.count("pruned: worse than the median at that epoch") == len(pruned)
    assert f"{6 - len(pruned)} finished, {len(pruned)} pruned" in printed.out
    assert "stopped by SIGTERM" in (Path(pruned[0].user_attrs["run"]).parent / "processes" / f"{ONE[0]}_seed0" /
                                    "log.txt").read_text()


def test_a_trial_that_fails_is_told_and_counted_and_the_sweep_goes_on(stub, monkeypatch, capsys):
    monkeypatch.setenv("FAIL_ABOVE", "0.03")
    found = run(read())
    failed = [trial.number for trial in found[ONE[0]].get_trials() if trial.state.name == "FAIL"]
    assert 0 < len(failed) < 6
    printed = capsys.readouterr()
    assert printed.err.count("failed: the loss is nan at step 7 (see runs/mine/") == len(failed) * len(found)
    assert f"{6 - len(failed)} finished, {len(failed)} failed" in printed.out
    monkeypatch.setenv("FAIL_ABOVE", "0")
    with pytest.raises(UserError, match="sweep none: no trial has finished: 6 failed; what each process printed"):
        run(read(FILE + "name: none\n", siblings=list(ONE)))


def test_a_trial_whose_values_contradict_each_other_fails_without_a_process(stub, capsys):
    found = run(read("trials: 8\nsiblings: [" + ONE[0] + "]\nspace:\n  optimizer.momentum: [0, 0.9]\n"
                     "  optimizer.nesterov: [true, false]\n"))[ONE[0]]
    failed = [trial for trial in found.get_trials() if trial.state.name == "FAIL"]
    assert {tuple(trial.params.values()) for trial in failed} == {("0.0", "true")}
    assert len(stub.calls) == 8 - len(failed)
    assert "failed: optimizer.nesterov=true needs optimizer.momentum above 0" in capsys.readouterr().err


# The store

@pytest.mark.parametrize("storage", ["sqlite:///other/place.db", "journal/of.log"])
def test_the_store_may_be_elsewhere(stub, storage):
    Path("other").mkdir()
    found = run(read(siblings=list(ONE), trials=2), storage)
    assert states(found[ONE[0]]) == ["COMPLETE"] * 2
    assert not Path("runs/mine/study.db").exists()


@pytest.mark.parametrize(("storage", "message"), [
    ("sqlite:///mine.yaml", "the store sqlite:///mine.yaml cannot be used (DatabaseError"),
    ("nonsense://host/x", "the store nonsense://host/x cannot be used (NoSuchModuleError"),
    ("postgresql+pg8000://host/x", "--storage postgresql+pg8000://host/x: "),  # whose driver is not installed
])
def test_a_store_that_cannot_be_used_is_told_in_one_line(stub, storage, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        run(read(), storage)
    assert "\n" not in str(error.value)
    assert stub.calls == []


def test_a_locked_store_ends_the_sweep_in_one_line_and_loses_nothing(stub, monkeypatch):
    monkeypatch.setattr(studies, "PATIENCE", 0.2)
    monkeypatch.setenv("STUB_SECONDS", "0.2")
    sweep = read(siblings=list(ONE), trials=3)
    open_again(sweep)
    begin = training.Training.start

    def lock_and_start(self):
        begin(self)
        if self.group.name == "mine_001":
            other.execute("BEGIN EXCLUSIVE")
    with sqlite3.connect("runs/mine/study.db", isolation_level=None) as other, monkeypatch.context() as patch:
        patch.setattr(training.Training, "start", lock_and_start)
        with pytest.raises(UserError, match=r"study\.db cannot be used \(OperationalError: .*locked.*; nothing is"):
            run(sweep)
        other.execute("ROLLBACK")
    assert not is_running(stub.calls[-1]["pid"])
    assert states(run(sweep)[ONE[0]]) == ["COMPLETE"] * 3
    assert len(list(Path("runs/mine").glob("*/*_seed0_*"))) == 3


def test_a_sweep_that_was_changed_is_refused(stub):
    run(read(trials=1))
    with pytest.raises(UserError, match=r"began with another space optimizer\.lr, train\.epochs, and trials could"):
        run(read(FILE.replace("high: 1.0", "high: 0.5").replace("epochs: 3", "epochs: 4")))


def test_missing_optuna_is_told_with_its_extra(stub, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setattr(studies.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"optuna is not installed here; install the extra sweep: pip install "):
        run_search(read(), None, 1)


# What is left at the end

@needs_both_folders
def test_the_report_answers_the_question(searched):
    values = [[trial.value for trial in study.get_trials()] for study in searched.studies.values()]
    rates = [trial.params["optimizer.lr"] for trial in searched.studies["keras"].get_trials()]
    rho = correlate_ranks(*map(np.array, values)).rho
    page = (searched.folder / "sweep.md").read_text(encoding="utf-8")
    for text in (page, " ".join(searched.out.split())):
        assert "Over the 8 trials that finished in both: " in text
        assert f"Rank correlation (Spearman) {rho:.2f}, 95 % interval " in text
    own, other = int(np.argmin(values[0])), int(np.argmin(values[1]))
    rank = 1 + sum(value < values[1][own] for value in values[1])
    assert f"the best of lightning, trial {own + 1}, is number {rank} of 8 in keras: val/loss {values[1][own]:.4f}, " \
           f"where keras's own best has {values[1][other]:.4f}." in page
    assert f"| {other + 1} | {rates[other]:.4g} | " in page
    assert "importance of" in page
    assert Image.open(searched.folder / "sweep.png").size == (1920, 672)


def test_the_best_setting_is_a_preset_that_makes_its_claim(searched):
    for sibling, study in searched.studies.items():
        path = searched.folder / f"best_{sibling}.yaml"
        config, best = load_config(path), study.best_trial
        assert config.optimizer.lr == best.params["optimizer.lr"]
        assert config.train.batch_size == int(best.params["train.batch_size"])
        assert (config.train.epochs, config.experiment, config.output_dir) == (3, "mine_best", "runs")
        expected = searched.sweep.build_trial(0, {key: str(value) for key, value in best.params.items()})
        expected.experiment, expected.output_dir = config.experiment, config.output_dir
        assert config == expected
        for line in (f"#   python {sibling}_project/train.py runs/mine/{path.name}",
                     "# accuracy   test 90.00 %, one seed",
                     f"# chosen by  val/loss {best.value:.4f}, the best of: 8 finished; test images chose nothing"):
            assert line in path.read_text(encoding="utf-8")


def test_too_few_trials_say_so(stub, capsys):
    run(read(trials=2))
    printed = capsys.readouterr().out
    assert len(list_siblings()) == 1 or "2 trials finished in both, and fewer than 5 tell nothing." in \
        " ".join(printed.split())
    assert "importance" not in printed


@pytest.mark.parametrize(("words", "message"), [
    ([], "name the file of a sweep first"), (["train.epochs=1"], "name the file of a sweep first"),
    (["mine.yaml", "--trials", "0"], "--trials has to be at least 1"),
    (["mine.yaml", "--slurm", "x"], "--slurm is for --grid"),
    (["--grid", "--wandb", "seed=1"], "--wandb is for a search"),
    (["mine.yaml", "train.epoch=1"], "unknown key 'train.epoch'"),
    (["mine.yaml", "--siblings", "jax"], "'jax' is not here"),
])
def test_a_mistake_in_the_command_ends_with_status_2_and_one_line(stub, words, message):
    read()
    done = subprocess.run([sys.executable, "-m", "shared.sweep", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
