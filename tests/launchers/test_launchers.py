"""Every launcher is run with stand-ins for the scheduler and the training, on this machine."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from shared.machine.files import REPOSITORY
from shared.machine.interpreters import PACKAGES, list_siblings

FOLDER = REPOSITORY / "configs" / "launchers"
SCRIPTS = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".sh", ".sbatch"))
# Of the siblings that are here, since the scripts look for them: tasks on two nodes.
SLURM = {f"slurm_{name}.sbatch": {"lightning": 4, "keras": 2}[name] for name in list_siblings()}
STUBS = ("srun", "scancel", "scontrol", "training")

pytestmark = pytest.mark.timeout(60)


class Launch:
    """A launcher at work beside its stand-ins."""

    def __init__(self, folder: Path):
        self.folder, self.bin, self.process = folder, folder / "bin", None
        self.bin.mkdir()
        source = (REPOSITORY / "tests" / "launchers" / "stubs.py").read_text()
        for name in STUBS:
            (self.bin / name).write_text(f"#!{sys.executable} -S\n{source}")
            (self.bin / name).chmod(0o755)
        self.environment = {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder), "STUBS": str(folder),
            "PYTHON": str(self.bin / "training")}

    def start(self, script: Path, *words: str, **variables: str) -> "Launch":
        self.process = subprocess.Popen(
            ["bash", str(script), *words], cwd=REPOSITORY, env=self.environment | variables, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return self

    def end(self) -> int:
        self.out, self.err = self.process.communicate(timeout=30)
        return self.process.returncode

    def calls(self, name: str) -> list[dict]:
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [call for call in found if call["name"] == name]

    def wait_for(self, name: str, number: int = 1) -> None:
        self.wait_until(lambda: len(self.calls(name)) == number)

    def wait_until(self, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not reached():
            assert time.monotonic() < end, self.folder.joinpath("calls.jsonl").read_text()
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)


@pytest.fixture
def launch(tmp_path):
    here = Launch(tmp_path)
    yield here
    tasks = tmp_path / "tasks"
    for pid in tasks.read_text().split() if tasks.exists() else []:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(pid), signal.SIGKILL)
    if here.process and here.process.poll() is None:
        here.process.kill()
        here.process.communicate()


def arguments(call: dict) -> list[str]:
    return call["arguments"]


# Written well

@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_can_read_it(name):
    done = subprocess.run(["bash", "-n", str(FOLDER / name)], capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_finds_nothing(name):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    # SC2317: older versions take what only a trap calls for unreachable.
    found = subprocess.run(["shellcheck", "--exclude=SC2317", str(FOLDER / name)], capture_output=True, text=True,
                           check=False)
    assert found.stdout == ""


def test_the_page_has_every_launcher():
    page = (REPOSITORY / "docs" / "scaling.md").read_text()
    assert {path.name for path in FOLDER.iterdir()} == {*SCRIPTS, "kubernetes.yaml"}
    for name in (*SCRIPTS, "kubernetes.yaml"):
        assert f"`{name}`" in page


# SLURM

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


# torchrun

def test_torchrun_on_one_machine(launch):
    assert launch.start(FOLDER / "torchrun.sh", "CONFIG", "seed=1", DEVICES="2", TRAINING="0").end() == 0
    call, = launch.calls("training")
    assert arguments(call) == [
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=0",
        "lightning_project/train.py", "hardware.num_nodes=1", "hardware.devices=2", "resume=auto", "CONFIG", "seed=1"]
    assert call["environment"]["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "120"


@pytest.mark.parametrize("gpus", [0, 3])
def test_torchrun_counts_the_gpus(launch, gpus):
    stub = launch.bin / "nvidia-smi"
    stub.write_text("#!/bin/sh\n" + "".join(f"echo 'GPU {i}: made'\n" for i in range(gpus)))
    stub.chmod(0o755)
    assert launch.start(FOLDER / "torchrun.sh", TRAINING="0").end() == 0
    assert f"--nproc-per-node={gpus or 1}" in arguments(launch.calls("training")[0])


def test_torchrun_on_several_machines(launch):
    machine = {"NODES": "2", "NODE": "1", "HEAD": "host-a", "DEVICES": "4"}
    assert launch.start(FOLDER / "torchrun.sh", TRAINING="0", **machine).end() == 0
    assert arguments(launch.calls("training")[0])[2:] == [
        "--nnodes=2", "--node-rank=1", "--master-addr=host-a", "--master-port=29500", "--nproc-per-node=4",
        "--max-restarts=0", "lightning_project/train.py", "hardware.num_nodes=2", "hardware.devices=4", "resume=auto"]


def test_torchrun_without_a_machines_number(launch):
    assert launch.start(FOLDER / "torchrun.sh", NODES="2", DEVICES="1").end() == 2
    assert launch.err.startswith("error: NODES=2 needs NODE")
    assert len(launch.err.splitlines()) == 1
    assert launch.calls("training") == []


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_torchrun_hands_a_signal_on_once_and_tells_which(launch, name, status):
    launch.start(FOLDER / "torchrun.sh", DEVICES="1").wait_for("training")
    launch.process.send_signal(signal.Signals[name])
    assert launch.end() == status
    assert [call["signals"] for call in launch.calls("saved")] == [[name]]


@pytest.mark.parametrize("status", [1, 2])
def test_torchruns_own_status_is_kept(launch, status):
    assert launch.start(FOLDER / "torchrun.sh", DEVICES="1", TRAINING=str(status)).end() == status


def test_torchrun_that_finishes_all_the_same_has_finished(launch):
    launch.start(FOLDER / "torchrun.sh", DEVICES="1", TRAINING="finishes").wait_for("training")
    launch.process.send_signal(signal.SIGTERM)
    assert launch.end() == 0


# Several machines without a scheduler, and a TPU

def test_a_worker_of_two(launch):
    launch.start(FOLDER / "multi_worker.sh", "CONFIG", WORKERS="a:1,10.0.0.2:22", INDEX="1").wait_for("training")
    call, = launch.calls("training")
    assert call["pid"] == launch.process.pid  # so that it gets the signal
    launch.process.send_signal(signal.SIGTERM)
    assert launch.end() == 143
    assert json.loads(call["environment"]["TF_CONFIG"]) == {
        "cluster": {"worker": ["a:1", "10.0.0.2:22"]}, "task": {"type": "worker", "index": 1}}
    assert arguments(call) == ["keras_project/train.py", "hardware.num_nodes=2", "hardware.devices=0", "resume=auto",
                               "CONFIG"]


def test_a_worker_of_one_is_no_cluster(launch):
    assert launch.start(FOLDER / "multi_worker.sh", WORKERS="a:1", INDEX="0", TRAINING="0").end() == 0
    call, = launch.calls("training")
    assert "TF_CONFIG" not in call["environment"]
    assert "hardware.num_nodes=1" in arguments(call)


@pytest.mark.parametrize(("workers", "index", "told"), [
    ("", "0", "expected WORKERS=host-a:20000,host-b:20000"), ("a:1,b", "0", "'b' is no host:port"),
    ("a:1,b:x", "0", "'b:x' is no host:port"), ("a:1,b:2", "2", "INDEX is this machine's place"),
    ("a:1,b:2", "", "INDEX is this machine's place"), ("a:1,b:2", "one", "INDEX is this machine's place"),
    ('a:1,"b:2', "0", "is no host:port"),
])
def test_a_cluster_that_cannot_be(launch, workers, index, told):
    assert launch.start(FOLDER / "multi_worker.sh", WORKERS=workers, INDEX=index).end() == 2
    assert told in launch.err
    assert len(launch.err.splitlines()) == 1
    assert launch.calls("training") == []


def test_a_tpu(launch):
    launch.start(FOLDER / "tpu_vm.sh", "CONFIG", TPU_NAME="local").wait_for("training")
    call, = launch.calls("training")
    assert call["pid"] == launch.process.pid
    launch.process.send_signal(signal.SIGTERM)
    assert launch.end() == 143
    assert arguments(call) == ["keras_project/train.py", "hardware.accelerator=tpu", "hardware.devices=0",
                               "hardware.precision=bf16", "resume=auto", "CONFIG"]


def test_no_tpu(launch):
    if any(Path("/dev").glob("accel*")) or any(Path("/dev").glob("vfio/[0-9]*")):
        pytest.skip("this machine has what may be a TPU")
    assert launch.start(FOLDER / "tpu_vm.sh").end() == 2
    assert launch.err.startswith("error: no TPU here")
    assert len(launch.err.splitlines()) == 1


# Kubernetes

@pytest.fixture(scope="module")
def manifest() -> dict[str, dict]:
    return {part["kind"]: part for part in yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())}


def test_the_kubernetes_job_is_whole(manifest):
    job = manifest["Job"]["spec"]
    pod = job["template"]["spec"]
    container, = pod["containers"]
    assert (manifest["Job"]["apiVersion"], manifest["PersistentVolumeClaim"]["apiVersion"]) == ("batch/v1", "v1")
    assert (job["completions"], job["parallelism"], job["podReplacementPolicy"]) == (1, 1, "Failed")
    assert pod["restartPolicy"] == "Never"  # the only one that podFailurePolicy allows
    assert pod["terminationGracePeriodSeconds"] >= 60
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert volumes["storage"]["persistentVolumeClaim"]["claimName"] == \
        manifest["PersistentVolumeClaim"]["metadata"]["name"]
    assert {entry["name"]: entry["valueFrom"]["secretKeyRef"].get("optional") for entry in container["env"]
            if "valueFrom" in entry} == {"WANDB_API_KEY": True}


def test_the_kubernetes_job_goes_on_after_an_eviction_and_not_after_an_error(manifest):
    rules = manifest["Job"]["spec"]["podFailurePolicy"]["rules"]
    container = manifest["Job"]["spec"]["template"]["spec"]["containers"][0]
    by_status = {value: rule["action"] for rule in rules if "onExitCodes" in rule
                 for value in rule["onExitCodes"]["values"]}
    assert by_status == {2: "FailJob", 143: "Ignore"}
    assert all(rule["onExitCodes"]["containerName"] == container["name"] for rule in rules if "onExitCodes" in rule)
    condition, = [rule for rule in rules if "onPodConditions" in rule]
    # "True" in quotes: without them YAML reads a boolean, which Kubernetes refuses.
    assert condition["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert condition["action"] == "Ignore"
    mount = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "storage")
    assert "resume=auto" in container["args"]
    assert f"output_dir={mount}/runs" in container["args"]


def test_the_kubernetes_job_runs_the_training_without_a_shell(manifest):
    container = manifest["Job"]["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] in (["python", f"{name}_project/train.py"] for name in PACKAGES)
    config = container["args"][0]
    assert (REPOSITORY / config).is_file()
    assert all("=" in word for word in container["args"][1:])
