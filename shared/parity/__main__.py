"""Compare both siblings on a ladder of nine rungs, from raw bytes to final scores."""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from shared.batches.data import load_data
from shared.config import Config, parse_config
from shared.config.command import report_errors
from shared.errors import UserError
from shared.machine.console import Table, say
from shared.machine.interpreters import (
    explain_not_runnable,
    list_siblings,
    list_variables,
    name_variable,
    require_interpreter,
)
from shared.machine.versions import read_git_state
from shared.parity.findings import Answer, Finding
from shared.parity.ladder import against_itself, compare_answers
from shared.parity.plan import RUNGS, base_of, changed, plan, precision_of
from shared.parity.request import PLUGIN, Task, write_request

COMMAND = "python -m shared.parity"
PURPOSE = """Compare both siblings on a ladder of nine rungs, from raw bytes to final scores.

It is fp64 unless hardware.precision is given as a key; what a file says of it does not count. In fp32 and bf16
tolerances are measured: how far one sibling is from itself.
TEMPLATE_LIGHTNING_PYTHON and TEMPLATE_KERAS_PYTHON name the siblings' interpreters where they are neither this one nor
those of .venv-lightning and .venv-keras."""

SIBLINGS = {"Lightning": "lightning", "Keras": "keras"}
# Suffixes of the tasks that measure the tolerance in less than float64.
YARDSTICKS = ("-threads", "-fp64")

YARDSTICK = """Rungs 4, 5, 7 and 8 are judged by a yardstick measured in the same run: how far Lightning is from itself
under another thread count, and from itself in float64. The siblings may be ten times as far apart as the larger of the
two over all cases of a kind, since one run tells the size of a growing difference to an order of magnitude only; four
times after 50 steps and on rung 8, where it has stopped growing. Logits in fp32 may be 1e-4 apart. What proves that the
algorithms are the same is float64."""


@dataclass
class Recording:
    """A probe at work in its own process."""

    label: str
    folder: Path
    process: subprocess.Popen

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def wait(self) -> None:
        """Wait for the probe.

        Raises:
            UserError: where it failed through something that the user can change.
            RuntimeError: where it failed otherwise, with the end of its log.
        """
        status = self.process.wait()
        if status == 0:
            return
        lines = self.log.read_text(errors="replace").splitlines() or ["it left no message"]
        if status == 2:
            raise UserError(f"{self.label}: {lines[-1].removeprefix('error: ')}")
        if lines[-1].startswith("ModuleNotFoundError"):
            raise UserError(f"{self.label}: {lines[-1].removeprefix('ModuleNotFoundError: ')} for "
                            f"{require_interpreter(SIBLINGS[self.label])}; install the sibling, or name its interpreter with "
                            f"{name_variable(SIBLINGS[self.label])}")
        tail = "\n".join(lines[-25:])
        raise RuntimeError(f"{self.label}'s probe ended with status {status}:\n{tail}")


def start(label: str, tasks: list[Task], folder: Path, plugin: Path | None = None) -> Recording:
    """Start a sibling's probe on `tasks`, which leaves its answers and log.txt in `folder`."""
    sibling = SIBLINGS[label]
    python, request = require_interpreter(sibling), write_request(tasks, folder)
    environment = list_variables() | {"PYTHONUNBUFFERED": "1"}
    environment.pop(PLUGIN, None)
    if plugin:
        environment[PLUGIN] = str(plugin)
    with (folder / "log.txt").open("w") as log:
        try:
            process = subprocess.Popen([python, "-m", f"{sibling}_project.probe", str(request)],
                                       stdout=log, stderr=subprocess.STDOUT, env=environment)
        except OSError as error:
            raise explain_not_runnable(sibling, error) from None
    return Recording(label, folder, process)


def record(tasks: dict[str, list[Task]], folder: Path) -> None:
    """Let both siblings answer their tasks, at the same time, into <folder>/<label>."""
    recordings = []
    try:
        for label in SIBLINGS:
            recordings.append(start(label, tasks[label], folder / label))
        for recording in recordings:
            recording.wait()
    finally:
        for recording in recordings:
            if recording.process.poll() is None:
                recording.process.kill()


def judge(tasks: list[Task], ours: Path, theirs: Path) -> list[Finding]:
    """Compare the answers of Lightning in `ours` with those of Keras in `theirs`."""
    findings, again = [], {suffix: [] for suffix in YARDSTICKS}
    for task in tasks:
        mine, other = Answer("Lightning", ours, task.name), Answer("Keras", theirs, task.name)
        if not needs_yardstick(task):
            findings += compare_answers(task, mine, other)
            continue
        again[""] = again.get("", []) + compare_answers(task, mine, other)
        for suffix in YARDSTICKS:
            again[suffix] += compare_answers(task, mine, Answer("Lightning again", ours, task.name + suffix))
    if judged := again.pop("", []):
        findings += against_itself(judged, *again.values(), tasks[0].config.hardware.precision)
    return sorted(findings, key=lambda finding: finding.rung)


def needs_yardstick(task: Task) -> bool:
    return task.kind in ("forward", "fit") and task.config.hardware.precision != "fp64"


def yardsticks(tasks: list[Task]) -> list[Task]:
    """What Lightning computes once more, to be compared with itself, in less than float64."""
    found = []
    for task in tasks:
        if needs_yardstick(task):
            other = 2 if task.config.hardware.threads == 1 else 1
            found += [Task(f"{task.name}-threads", task.kind, changed(task.config, hardware__threads=other)),
                      Task(f"{task.name}-fp64", task.kind, changed(task.config, hardware__precision="fp64"))]
    return found


def climb(config: Config, rungs: set[int] | None = None, **extent: object) -> list[Finding]:
    """Record and compare `rungs`, all of them unless named, for a config as a user gives it.

    `extent` goes to `plan`. Needs up to 2 GB under `config.output_dir` while it runs.

    Raises:
        UserError: where the config, the data or an interpreter will not do.
    """
    base = base_of(config)
    if not base.hardware.threads:  # both run at the same time, and threads that wait for a core slow both down
        base.hardware.threads = max(1, (os.cpu_count() or 2) // 2)
    with tempfile.TemporaryDirectory(prefix="parity-", dir=report_folder(config)) as place:
        folder = Path(place).absolute()
        tasks = plan(base, load_data(base), folder, rungs or set(RUNGS), **extent)
        record({"Lightning": tasks + yardsticks(tasks), "Keras": tasks}, folder)
        found = judge(tasks, folder / "Lightning", folder / "Keras")
    return [finding for finding in found if not rungs or finding.rung in rungs]


def report_folder(config: Config) -> Path:
    folder = Path(config.output_dir).expanduser() / config.group
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output_dir: {folder} cannot be made ({error.strerror}); choose another") from None
    return folder


def first_failure(findings: list[Finding]) -> Finding | None:
    return next((finding for finding in sorted(findings, key=lambda item: item.rung) if not finding.passes), None)


def rows(findings: list[Finding]) -> Table:
    """One row a rung: the comparison that uses up most of its tolerance."""
    table = Table(["rung", "closest to its tolerance", "difference", "tolerance", "result"], [])
    for rung, name in RUNGS.items():
        of_rung = [finding for finding in findings if finding.rung == rung]
        if of_rung:
            top = max(of_rung, key=lambda finding: (not finding.passes, finding.strain))
            table.rows.append([f"{rung} {name}", top.what, *figures(top)])
    return table


def figures(finding: Finding) -> list[str]:
    tolerance = "equal" if finding.tolerance == 0 else f"{finding.tolerance:.2g}"
    return [f"{finding.figure:.2g}", tolerance, "pass" if finding.passes else "FAIL"]


def verdict(findings: list[Finding]) -> str:
    failure = first_failure(findings)
    if failure is None:
        return "All rungs pass."
    return f"First failure: rung {failure.rung} {RUNGS[failure.rung]}, {failure.what}. {failure.where}"


def markdown(findings: list[Finding], words: list[str], precision: str, seconds: float) -> str:
    """The report: what was run, a row a rung, and every comparison."""
    every = Table(["comparison", "difference", "tolerance", "result", "largest at"], [])
    measured = any(finding.threads is not None for finding in findings)
    if measured:
        every.header[1:1] = ["other threads", "from fp64"]
    for finding in findings:
        yards = ["" if value is None else f"{value:.2g}" for value in (finding.threads, finding.rounding)]
        every.rows.append([f"{finding.rung} {finding.what}", *(yards if measured else []), *figures(finding),
                           finding.where])
    yardstick = f"\n\n{YARDSTICK}" if measured else ""
    revision = read_git_state()
    state = f"{revision['revision'] or 'unknown'}{' with changes' if revision['dirty'] else ''}"
    return f"""# Parity of the siblings in {precision}

`{shlex.join([*COMMAND.split(), *words])}`, {seconds:.0f} s, revision {state}

{rows(findings).markdown()}

{verdict(findings)}{yardstick}

## Every comparison

{every.markdown()}
"""


def configured(words: list[str]) -> Config:
    """The config of a command line, in fp64 unless the command line itself names a precision. Raises `UserError`."""
    config = parse_config(words, COMMAND, PURPOSE)
    if not any(word.startswith("hardware.precision=") for word in words):
        config.hardware.precision = "auto"
    return config


def main(words: list[str]) -> bool:
    """Climb, print and write the report; whether all rungs pass."""
    config = configured(words)
    if len(list_siblings()) < 2:
        raise UserError(f"parity compares two siblings, and only {list_siblings()[0]}_project is here; make train "
                        "trains it")
    started = time.perf_counter()
    precision = precision_of(config)
    if config.augment.policy != "none":
        say(f"augment.policy={config.augment.policy} is left out: the siblings' policies differ in their draws")
    say(f"recording both siblings in {precision} on the CPU; this takes minutes")
    findings = climb(config)
    seconds = time.perf_counter() - started
    print(f"{rows(findings).text()}\n{verdict(findings)}  ({precision}, {seconds:.0f} s)")
    report = report_folder(config) / "parity.md"
    report.write_text(markdown(findings, words, precision, seconds))
    print(f"report: {report}")
    return first_failure(findings) is None


def run() -> None:
    passes = main(sys.argv[1:])
    sys.exit(0 if passes else 1)


if __name__ == "__main__":
    report_errors(run)
