"""Stand-ins for SLURM's commands and for the training, which behave under signals as the real ones do.

Each is a script on PATH that appends what it was called with to calls.jsonl in the folder $STUBS.

srun        starts SLURM_NTASKS tasks; SIGTERM makes it kill them with SIGKILL (`_srun_signal_mgr` in SLURM's
            srun_job.c), and it ends with the highest status of its tasks
scancel     --signal=NAME JOB signals the tasks, neither srun nor the batch script
scontrol    requeue JOB; show hostnames LIST
training    runs until a signal, then does what $TRAINING says; it stands in for the interpreter
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STUBS = Path(os.environ.get("STUBS", "."))
KEPT = ("TF_CONFIG", "SRUN_CPUS_PER_TASK", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "SLURM_PROCID")


def note(name: str, **facts: object) -> None:
    line = json.dumps({"name": name, "arguments": sys.argv[1:], "pid": os.getpid(), **facts,
                       "environment": {key: os.environ[key] for key in KEPT if key in os.environ}}) + "\n"
    with (STUBS / "calls.jsonl").open("a") as file:
        file.write(line)


def tasks() -> list[int]:
    path = STUBS / "tasks"
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def srun() -> int:
    def terminate(number: int, frame: object) -> None:
        note("forced termination")
        for pid in tasks():
            os.kill(pid, signal.SIGKILL)
    signal.signal(signal.SIGTERM, terminate)
    command = sys.argv[1:]
    while command[0].startswith("--"):
        command = command[1:]
    note("srun")
    started = [subprocess.Popen(command, env=os.environ | {"SLURM_PROCID": str(i)}, start_new_session=True)
               for i in range(int(os.environ["SLURM_NTASKS"]))]
    (STUBS / "tasks").write_text(" ".join(str(task.pid) for task in started))
    statuses = [task.wait() for task in started]
    return max(128 - status if status < 0 else status for status in statuses)


def scancel() -> int:
    note("scancel")
    number = signal.Signals[f"SIG{sys.argv[1].removeprefix('--signal=')}"]
    for pid in tasks():
        os.kill(pid, number)
    return 0


def scontrol() -> int:
    note("scontrol")
    if sys.argv[1] == "requeue":
        return int(os.environ.get("REQUEUE_STATUS", "0"))
    assert sys.argv[1:3] == ["show", "hostnames"]
    print("\n".join(sys.argv[3].split(",")))
    return 0


def training() -> int:
    """$TRAINING: "saves" after a signal, "finishes" after one, "hangs" after one, or ends at once with a number."""
    behaviour, is_torchrun = os.environ.get("TRAINING", "saves"), "torch.distributed.run" in sys.argv
    received = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: received.append(number))
    note("training")
    if behaviour.isdigit():
        return int(behaviour)
    while not received or behaviour == "hangs":
        time.sleep(0.02)
    time.sleep(0.3)  # a checkpoint takes a while
    note("saved", signals=[signal.Signals(number).name for number in received])
    if behaviour == "finishes":
        return 0
    return 1 if is_torchrun else 128 + received[0]


if __name__ == "__main__":
    sys.exit({"srun": srun, "scancel": scancel, "scontrol": scontrol, "training": training}[Path(sys.argv[0]).name]())
