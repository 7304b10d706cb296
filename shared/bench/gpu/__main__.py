"""Try on this machine's GPU what this repository promises there, in parts, for ten minutes at most.

python -m shared.bench.gpu [--cpu] [--parts PART ...] [--again]

Each part runs the siblings' own programs, is written down when it ends, and is not run again: the same command goes on
where the time was up. It leaves a JSON file and a page, and renews the table in docs/scaling.md.
"""

import argparse
import fnmatch
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared.bench.gpu.parts import FAILS, NEEDS_GPU, Finding, Part, list_parts
from shared.bench.gpu.record import KEPT, Record, update_page
from shared.bench.gpu.runner import OutOfTimeError, ProgramError, Runner
from shared.errors import UserError, summarise_error
from shared.machine.arguments import Parser
from shared.machine.console import say
from shared.machine.ending import report_errors
from shared.machine.files import expand_home
from shared.machine.hardware import count_cores, describe_cpu
from shared.machine.interpreters import find_interpreter, list_siblings
from shared.machine.versions import read_git_state

LEAST = 10  # seconds without which no part is begun
# What Linux has where there is a GPU: of NVIDIA, of AMD, or of the Windows that it runs in.
SIGNS = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/kfd", "/dev/dxg")
NO_GPU = ("no GPU here that PyTorch or TensorFlow can use; make setup-gpu installs their GPU builds, and --cpu tries "
          "this command itself on the CPU")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m shared.bench.gpu", allow_abbrev=False, description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="try the command itself, on the CPU and small; what needs a "
                                                           "GPU says so")
    parser.add_argument("--parts", metavar="PART", nargs="+", default=["*"],
                        help="only these, such as lightning/bf16 or 'keras/*'")
    parser.add_argument("--again", action="store_true", help="run parts again that have a result")
    parser.add_argument("--minutes", metavar="N", type=float, default=10, help="time for all; default: 10")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="where the JSON file and the page go; default: "
                                                                   "docs/gpu, and runs with --cpu")
    parser.add_argument("--table", action="store_true", help="only renew the table in docs/scaling.md")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> bool:
    """Run the parts that are left and return whether none has failed."""
    began, options = time.monotonic(), parse_arguments(arguments)
    if options.table:
        update_page()
        return True
    end = began + 60 * options.minutes
    installed = tuple(sibling for sibling in list_siblings() if find_interpreter(sibling))
    parts = {name: part for name, part in list_parts(installed).items()
             if any(fnmatch.fnmatch(name, pattern) for pattern in options.parts)}
    if not parts:
        raise UserError(f"--parts {' '.join(options.parts)} is none of the parts of the siblings that are installed "
                        f"here: {', '.join(list_parts(installed)) or 'none, make setup installs them'}")
    if not options.cpu and sys.platform == "linux" and not any(Path(sign).exists() for sign in SIGNS):
        raise UserError(NO_GPU)
    with tempfile.TemporaryDirectory(prefix="check-gpu-") as place:
        runners = {}
        for sibling in dict.fromkeys(name.partition("/")[0] for name in parts):
            Path(place, sibling).mkdir()
            runners[sibling] = Runner(sibling, not options.cpu, Path(place, sibling), end)
        siblings = {sibling: describe_sibling(runner) for sibling, runner in runners.items()}
        record = Record(make_folder(options), describe_machine(siblings, options.cpu), siblings, options.again)
        left = [name for name in parts if options.again or name not in record.parts]
        for number, name in enumerate(left):
            if (rest := end - time.monotonic()) < LEAST:
                break
            clock = f"{int(rest) // 60}:{int(rest) % 60:02}"
            say(f"{number + 1}/{len(left)} {name}: {parts[name].title} ({clock} left)")
            runner = runners[name.partition("/")[0]]
            found = run_part(parts[name], runner, "gpu" in siblings[runner.sibling], end)
            if found is None:
                break
            record.add(name, found)
            say(f"    {found['outcome']} after {found['seconds']:.0f} s{found['text'] and ': ' + found['text']}")
    if record.file.parent == KEPT:
        update_page()
    left = [name for name in parts if name not in record.parts]
    if left:
        print(f"the time is up and {len(left)} of {len(parts)} parts are left; the same command goes on with them")
    failed = [name for name in parts if record.parts.get(name, {}).get("outcome") == FAILS]
    print(f"{len(parts) - len(left) - len(failed)} parts are done, {len(failed)} failed"
          f"{': ' + ', '.join(failed) if failed else ''}\n{record.file.with_suffix('.md')}")
    return not failed


def make_folder(options: argparse.Namespace) -> Path:
    folder = expand_home(options.out) if options.out else Path("runs") if options.cpu else KEPT
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: {folder} cannot be made ({error.strerror}); name another folder") from None
    return folder


def run_part(part: Part, runner: Runner, has_gpu: bool, end: float) -> dict[str, Any] | None:
    """What is recorded of a part; None where the `end` of all time cut it off, of which nothing follows."""
    started = time.monotonic()
    runner.deadline = min(end, started + part.seconds)
    log: list[str] = []
    try:
        if part.needs_gpu and not runner.on_gpu:
            finding = Finding(NEEDS_GPU, "")
        elif runner.on_gpu and not has_gpu:
            finding = Finding(NEEDS_GPU, f"the {runner.sibling} sibling finds none")
        else:
            finding = part.check(runner)
    except ProgramError as error:
        if isinstance(error, OutOfTimeError) and runner.deadline == end:
            return None
        finding, log = Finding(FAILS, str(error)), error.log
    except Exception as error:  # whatever a part meets, the others go on
        finding = Finding(FAILS, summarise_error(error))
    found = {"outcome": finding.outcome, "text": finding.text, "figures": finding.figures,
             "seconds": round(time.monotonic() - started, 1)}
    return found | ({"log": log} if log else {})


def describe_sibling(runner: Runner) -> dict[str, Any]:
    """What a sibling says of its GPU and of its packages."""
    try:
        return runner.measure("gpu_check", "describe", 0, "hardware.accelerator="
                              + ("auto" if runner.on_gpu else "cpu"))
    except ProgramError as error:
        raise UserError(f"the {runner.sibling} sibling cannot be asked for its GPU ({error}); mend it, or leave it out "
                        "with --parts") from None


def describe_machine(siblings: dict[str, dict[str, Any]], on_cpu: bool) -> dict[str, Any]:
    """The facts that a record begins with.

    Raises:
        UserError: where a GPU is wanted and none is found.
    """
    gpus = [facts["gpu"] for facts in siblings.values() if "gpu" in facts]
    if not (gpus or on_cpu):
        raise UserError(NO_GPU)
    return {"device": describe_cpu() if on_cpu else gpus[0], "accelerator": "cpu" if on_cpu else "gpu",
            "driver": find_driver(), "cpu": describe_cpu(), "cores": count_cores(), "system": platform.platform(),
            **read_git_state(), "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}


def find_driver() -> str | None:
    """The version of NVIDIA's driver, where it has a tool that tells it."""
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


def run_command() -> None:
    sys.exit(0 if main(sys.argv[1:]) else 1)


if __name__ == "__main__":
    report_errors(run_command)
