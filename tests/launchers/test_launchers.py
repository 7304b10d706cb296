"""Every launcher but those of SLURM is run with stand-ins for the training and what starts it, on this machine."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from shared.machine.files import REPOSITORY
from shared.machine.interpreters import PACKAGES
from tests.launchers.conftest import FOLDER, arguments

SCRIPTS = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".sh", ".sbatch"))

pytestmark = pytest.mark.timeout(60)


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
    manifests = ("kubernetes.yaml", "kubernetes_serve.yaml")
    assert {path.name for path in FOLDER.iterdir()} == {*SCRIPTS, *manifests}
    for name in (*SCRIPTS, *manifests):
        assert f"`{name}`" in page


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


# Serving on Kubernetes

@pytest.fixture(scope="module")
def server() -> dict[str, dict]:
    return {part["kind"]: part for part in yaml.safe_load_all((FOLDER / "kubernetes_serve.yaml").read_text())}


def test_the_kubernetes_server_is_whole(server, manifest):
    deployment, service = server["Deployment"]["spec"], server["Service"]["spec"]
    pod = deployment["template"]["spec"]
    container, = pod["containers"]
    assert (server["Deployment"]["apiVersion"], server["Service"]["apiVersion"]) == ("apps/v1", "v1")
    labels = deployment["template"]["metadata"]["labels"]
    assert service["selector"] == deployment["selector"]["matchLabels"] == labels
    named = {port["name"] for port in container["ports"]}
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
    assert {port["targetPort"] for port in service["ports"]} | {probe["port"] for probe in probes} == named
    assert {probe["path"] for probe in probes} == {"/health"}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    claim = next(volume["persistentVolumeClaim"] for volume in pod["volumes"] if volume["name"] == "storage")
    assert claim["claimName"] == manifest["PersistentVolumeClaim"]["metadata"]["name"]


def test_the_kubernetes_server_is_given_words_that_it_knows(server):
    from shared.artifacts.serve.command import parse_arguments

    container = server["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["python", "-m", "shared.serve"]
    options = parse_arguments(container["args"])
    assert options.host == "0.0.0.0"
    assert options.port == container["ports"][0]["containerPort"]
    assert options.threads == int(container["resources"]["requests"]["cpu"])
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert writable == ["/tmp"]
