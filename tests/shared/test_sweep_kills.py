"""Sweeps and trainings that are killed, stopped, or shared with another process."""

import signal
from pathlib import Path

import pytest

from shared.machine.interpreters import list_siblings
from shared.training.sweep import studies
from shared.training.sweep.search import Search
from tests.shared.sweeps import Stub, install_stub, is_running, open_again, read, run, start, states, wait_for

pytest.importorskip("optuna")

ONE = list_siblings()[:1]


@pytest.fixture
def stub(tmp_path, monkeypatch) -> Stub:
    return install_stub(tmp_path, monkeypatch)


def test_a_killed_sweep_goes_on_and_neither_loses_nor_repeats_a_trial(stub, monkeypatch):
    trials = 6 // len(list_siblings())
    sweep = read(trials=trials)
    finished = 0
    for kills, enough in enumerate((1, 3)):
        process = start("--trials", str(trials), STUB_HOLD_FROM=str(enough))
        # One is called anew after each kill, and the last one is held.
        wait_for(lambda calls=enough + kills: len(stub.calls) > calls)
        process.kill()
        process.communicate()
        orphan = stub.calls[-1]["pid"]
        assert is_running(orphan)  # it outlives its sweep, and its run folder is its own
        found = open_again(sweep)
        assert sum(states(study).count("RUNNING") for study in found.values()) == 1
        assert sum(states(study).count("COMPLETE") for study in found.values()) > finished
        finished = sum(states(study).count("COMPLETE") for study in found.values())
    found = run(sweep)
    assert not is_running(orphan)
    assert [states(study) for study in found.values()] == [["COMPLETE"] * trials] * len(found)
    assert len(list(Path("runs/mine").glob("*/*/result.json"))) == trials * len(found)
    # What was cut off went on in its folder.
    assert len(list(Path("runs/mine").glob("*/*_seed0_*"))) == trials * len(found)
    assert len(stub.calls) <= trials * len(found) + 2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_trainings_save_and_the_same_command_goes_on(stub, number, status):
    sweep = read(siblings=list(ONE), trials=3)
    process = start("--siblings", ONE[0], "--trials", "3", "--at-once", "2", STUB_SECONDS="5")
    wait_for(lambda: len(stub.calls) == 2 and len(list(Path("runs/mine").glob("*/*/metrics.jsonl"))) == 2)
    process.send_signal(number)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == status, err
    assert err.endswith("stopping: 2 trainings save their state\n\n"
                        f"stopped by {number.name}; the same command goes on\n")
    assert not any(is_running(call["pid"]) for call in stub.calls)
    assert states(open_again(sweep)[ONE[0]]) == ["RUNNING", "RUNNING"]
    assert states(run(sweep, at_once=2)[ONE[0]]) == ["COMPLETE"] * 3
    assert len(list(Path("runs/mine").glob("*/*_seed0_*"))) == 3


def test_a_training_that_a_signal_ended_goes_on_in_the_same_sweep(stub, monkeypatch, capsys):
    monkeypatch.setenv("STUB_SECONDS", "0.6")
    search = Search(read(siblings=list(ONE), trials=1), open_again(read(siblings=list(ONE), trials=1)))
    task = search.take()
    task.begin()
    wait_for(task.training.read_epochs)
    task.training.process.kill()
    wait_for(task.training.has_ended)
    task.end()
    assert states(search.studies[ONE[0]]) == ["COMPLETE"]
    assert "was ended by a signal and goes on" in capsys.readouterr().err
    assert len(stub.calls) == 2


def test_a_training_that_finishes_after_its_sweep_was_killed_is_not_repeated(stub, monkeypatch):
    monkeypatch.setenv("STUB_SECONDS", "0.2")
    monkeypatch.setenv("IGNORE_SIGTERM", "1")
    sweep = read(siblings=list(ONE), trials=1)
    killed = Search(sweep, open_again(sweep)).take()
    killed.begin()
    wait_for(lambda: stub.calls)
    killed.training.release()
    assert states(run(sweep)[ONE[0]]) == ["COMPLETE"]
    assert len(stub.calls) == 1


def test_a_trial_that_another_process_has_is_left_to_it(stub, tmp_path):
    sweep = read(siblings=list(ONE), trials=2)
    hold = tmp_path / "hold"
    hold.touch()
    process = start("--siblings", ONE[0], "--trials", "2", STUB_HOLD=str(hold))
    wait_for(lambda: stub.calls)
    found = run(sweep)[ONE[0]]  # takes the second trial
    assert "RUNNING" in states(found)
    hold.unlink()
    assert process.wait(timeout=60) == 0
    assert states(open_again(sweep)[ONE[0]]) == ["COMPLETE"] * 2
    assert len(stub.calls) == 2


def test_a_trial_that_has_just_ended_elsewhere_is_not_ended_again(stub):
    sweep = read(siblings=list(ONE), trials=1)
    search = Search(sweep, open_again(sweep))
    trial = studies.begin_trial(search.studies[ONE[0]])
    studies.suggest_words(sweep, trial)
    search.studies[ONE[0]].tell(trial, 0.5)
    assert search.prepare(ONE[0], trial) is None
    assert search.prepare(ONE[0], studies.begin_trial(search.studies[ONE[0]])) is not None


def test_a_trial_of_a_machine_with_other_folders_is_left_to_it(stub):
    sweep = read(siblings=list(ONE), trials=2)
    search = Search(sweep, open_again(sweep))
    studies.begin_trial(search.studies[ONE[0]]).set_user_attr("host", "elsewhere")
    assert search.take().trial.number == 1
    assert search.take() is None


def test_a_trial_that_was_cut_off_before_it_had_values_is_taken_up(stub):
    sweep = read(siblings=list(ONE), trials=2)
    open_again(sweep)[ONE[0]].ask()
    assert states(run(sweep)[ONE[0]]) == ["COMPLETE"] * 2
