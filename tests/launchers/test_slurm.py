"""The SLURM scripts are run with stand-ins for the scheduler and the training, on this machine."""

import json
import os
import re
import signal
import time

import pytest

from shared.machine.files import REPOSITORY
from shared.machine.interpreters import list_siblings
from tests.launchers.conftest import FOLDER, Launch, arguments

# Of the siblings that are here, since the scripts look for them: tasks on two nodes.
SLURM = {f"slurm_{name}.sbatch": {"lightning": 4, "keras": 2}[name] for name in list_siblings()}

pytestmark = pytest.mark.timeout(60)


def submitted(launch: Launch, name: str, *words: str, **variables: str) -> Launch:
    """What sbatch does: run a copy of the script from a spool folder, with the job's variables."""
    copy = launch.folder / "slurm_script"
    copy.write_text(variables.pop("script", (FOLDER / name).read_text()))
    tasks = SLURM[name]
    job = {"SLURM_SUBMIT_DIR": str(REPOSITORY), "SLURM_JOB_ID": "4711", "SLURM_NNODES": "2",
           "SLURM_NTASKS": str(tasks), "SLURM_NTASKS_PER_NODE": str(tasks // 2), "SLURM_CPUS_PER_TASK": "8",
           "SLURM_JOB_NODELIST": "host2,host10"}
    return launch.start(copy, *words, **(job | variables))


def running(launch: Launch, name: str, **variables: str) -> Launch:
    submitted(launch, name, "CONFIG", "seed=1", **variables).wait_for("training", SLURM[name])
    return launch


def requeued(launch: Launch) -> list[list[str]]:
    return [arguments(call) for call in launch.calls("scontrol") if arguments(call)[0] == "requeue"]


@pytest.mark.parametrize("name", SLURM)
def test_what_the_job_asks_slurm_for(name):
    asked = re.findall(r"^#SBATCH (.*)$", (FOLDER / name).read_text(), re.MULTILINE)
    assert {"--signal=B:USR1@120", "--requeue", "--open-mode=append"} <= set(asked)
    assert not any("#" in line for line in asked)


@pytest.mark.parametrize("name", SLURM)
def test_before_its_time_is_up_a_job_saves_and_is_requeued(launch, name):
    running(launch, name).process.send_signal(signal.SIGUSR1)
    assert launch.end() == 143
    assert [arguments(call) for call in launch.calls("scancel")] == [["--signal=TERM", "4711"]]
    assert [call["signals"] for call in launch.calls("saved")] == [["SIGTERM"]] * SLURM[name]
    assert launch.calls("forced termination") == []
    assert requeued(launch) == [["requeue", "4711"]]
    assert launch.err == "time is nearly up: asking the training to save\n"


@pytest.mark.parametrize("name", SLURM)
def test_signalling_srun_instead_would_be_found(launch, name):
    script = (FOLDER / name).read_text().replace('scancel --signal=TERM "$SLURM_JOB_ID"', 'kill -TERM "$step"')
    running(launch, name, script=script).process.send_signal(signal.SIGUSR1)
    assert launch.end() == 137
    assert len(launch.calls("forced termination")) == 1
    assert launch.calls("saved") == []


@pytest.mark.parametrize("name", SLURM)
def test_a_training_that_is_too_slow_to_save_is_requeued_all_the_same(launch, name):
    running(launch, name, TRAINING="hangs").process.send_signal(signal.SIGUSR1)
    launch.wait_for("scancel")
    for pid in (launch.folder / "tasks").read_text().split():  # as SLURM does when the time is up
        os.kill(int(pid), signal.SIGKILL)
    assert launch.end() == 137
    assert requeued(launch) == [["requeue", "4711"]]


@pytest.mark.parametrize("name", SLURM)
@pytest.mark.parametrize("status", [0, 2])
def test_a_training_that_ends_by_itself_is_not_requeued(launch, name, status):
    assert submitted(launch, name, "CONFIG", TRAINING=str(status)).end() == status
    assert requeued(launch) == []
    assert launch.err == ""


@pytest.mark.parametrize("name", SLURM)
def test_a_training_that_finishes_just_then_is_not_requeued(launch, name):
    running(launch, name, TRAINING="finishes").process.send_signal(signal.SIGUSR1)
    assert launch.end() == 0
    assert requeued(launch) == []


@pytest.mark.parametrize("name", SLURM)
def test_a_cancelled_job_stays_until_it_has_saved_and_is_not_requeued(launch, name):
    running(launch, name).process.send_signal(signal.SIGTERM)
    time.sleep(0.1)  # SLURM signals the tasks a moment later
    for pid in (launch.folder / "tasks").read_text().split():
        os.kill(int(pid), signal.SIGTERM)
    assert launch.end() == 143
    assert len(launch.calls("saved")) == SLURM[name]
    assert requeued(launch) == launch.calls("scancel") == []


@pytest.mark.parametrize("name", SLURM)
def test_a_second_signal_changes_nothing(launch, name):
    running(launch, name).process.send_signal(signal.SIGUSR1)
    launch.wait_for("scancel")
    launch.process.send_signal(signal.SIGTERM)
    assert launch.end() == 143
    assert requeued(launch) == [["requeue", "4711"]]


@pytest.mark.parametrize("name", SLURM)
def test_a_job_that_may_not_be_requeued_says_so(launch, name):
    running(launch, name, REQUEUE_STATUS="1").process.send_signal(signal.SIGUSR1)
    assert launch.end() == 143
    assert launch.err.splitlines()[-1] == "error: this job may not be requeued; submit it again to go on"


@pytest.mark.parametrize("name", SLURM)
def test_submitted_from_elsewhere(launch, name):
    assert submitted(launch, name, SLURM_SUBMIT_DIR=str(launch.folder)).end() == 2
    assert launch.err == f"error: {launch.folder} is not the repository's root; submit from there\n"
    assert launch.calls("srun") == []


@pytest.mark.skipif("slurm_lightning.sbatch" not in SLURM, reason="lightning_project is not here")
def test_slurm_starts_lightning_once_per_device(launch):
    assert submitted(launch, "slurm_lightning.sbatch", "CONFIG", "seed=1", TRAINING="0").end() == 0
    step, = launch.calls("srun")
    assert arguments(step)[:2] == ["--kill-on-bad-exit=0", "--wait=60"]
    assert step["environment"]["SRUN_CPUS_PER_TASK"] == "8"
    assert {call["environment"]["SLURM_PROCID"] for call in launch.calls("training")} == {"0", "1", "2", "3"}
    for call in launch.calls("training"):
        assert arguments(call) == ["lightning_project/train.py", "hardware.num_nodes=2", "hardware.devices=2",
                                   "resume=auto", "CONFIG", "seed=1"]


@pytest.mark.skipif("slurm_keras.sbatch" not in SLURM, reason="keras_project is not here")
def test_slurm_starts_keras_once_per_machine_in_slurms_order(launch):
    assert submitted(launch, "slurm_keras.sbatch", "CONFIG", "seed=1", TRAINING="0").end() == 0
    assert len(launch.calls("training")) == 2
    for call in launch.calls("training"):
        assert arguments(call) == ["keras_project/train.py", "hardware.num_nodes=2", "hardware.devices=0",
                                   "resume=auto", "CONFIG", "seed=1"]
        cluster = json.loads(call["environment"]["TF_CONFIG"])
        assert cluster == {"cluster": {"worker": ["host2:24711", "host10:24711"]},
                           "task": {"type": "worker", "index": int(call["environment"]["SLURM_PROCID"])}}
