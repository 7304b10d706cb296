"""Compare both siblings on a ladder of nine rungs, from raw bytes to final scores."""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from shared.config import Config, parse_config
from shared.data.loading import load_data
from shared.errors import UserError
from shared.machine.console import Table, say
from shared.machine.ending import report_errors
from shared.machine.interpreters import (
    explain_not_runnable,
    list_siblings,
    list_variables,
    name_variable,
    require_interpreter,
)
from shared.machine.versions import read_git_state
from shared.parity.findings import Answer, Finding
from shared.parity.ladder import compare_answers, judge_by_yardsticks
from shared.parity.plan import RUNGS, change_config, find_precision, plan_tasks, strip_config
from shared.parity.request import PLUGIN, Task, write_request

COMMAND = "python -m shared.parity"
PURPOSE = """Compare both siblings on a ladder of nine rungs, from raw bytes to final scores.

It computes in fp64 unless the command line sets hardware.precision; what a config file says of it does not count. In
fp32 and bf16 the tolerances are measured in the same run, by how far Lightning is from itself.
TEMPLATE_LIGHTNING_PYTHON and TEMPLATE_KERAS_PYTHON name the siblings' interpreters where they are neither this one nor
those of .venv-lightning and .venv-keras."""

SIBLINGS = {"Lightning": "lightning", "Keras": "keras"}
# Suffixes of the tasks that Lightning computes again, to measure the tolerances in less than float64.
YARDSTICKS = ("-threads", "-fp64")

YARDSTICK = """Rungs 4, 5, 7 and 8 are judged by a yardstick measured in the same run: how far Lightning is from itself
with another number of threads, and from itself in float64. The siblings may be ten times as far apart as the larger of
the two over all cases of a kind, since one run tells the size of a growing difference to an order of magnitude only;
four times after 50 steps and on rung 8, where the difference has stopped growing. Logits in fp32 may be 1e-4 apart.
That the algorithms are the same is proved in float64."""


@dataclass
class ProbeProcess:
    """A sibling's probe, which runs in its own process."""

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
        lines = self.log.read_text(errors="replace", encoding="utf-8").splitlines() or ["it left no message"]
        if status == 2:
            raise UserError(f"{self.label}: {lines[-1].removeprefix('error: ')}")
        if lines[-1].startswith("ModuleNotFoundError"):
            sibling = SIBLINGS[self.label]
            raise UserError(f"{self.label}: {lines[-1].removeprefix('ModuleNotFoundError: ')} for "
                            f"{require_interpreter(sibling)}; install the sibling, or name its interpreter with "
                            f"{name_variable(sibling)}")
        tail = "\n".join(lines[-25:])
        raise RuntimeError(f"{self.label}'s probe ended with status {status}:\n{tail}")


def start_probe(label: str, tasks: list[Task], folder: Path, plugin: Path | None = None) -> ProbeProcess:
    """Start a sibling's probe, which answers `tasks` in `folder` and writes log.txt there. It runs `plugin` first."""
    sibling = SIBLINGS[label]
    python, request = require_interpreter(sibling), write_request(tasks, folder)
    environment = list_variables() | {"PYTHONUNBUFFERED": "1"}
    environment.pop(PLUGIN, None)
    if plugin:
        environment[PLUGIN] = str(plugin)
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        try:
            process = subprocess.Popen([python, "-m", f"{sibling}_project.probe", str(request)],
                                       stdout=log, stderr=subprocess.STDOUT, env=environment)
        except OSError as error:
            raise explain_not_runnable(sibling, error) from None
    return ProbeProcess(label, folder, process)


def run_probes(tasks: dict[str, list[Task]], folder: Path) -> None:
    """Let both siblings answer their tasks at the same time, in <folder>/Lightning and <folder>/Keras."""
    probes = []
    try:
        for label in SIBLINGS:
            probes.append(start_probe(label, tasks[label], folder / label))
        for probe in probes:
            probe.wait()
    finally:
        for probe in probes:
            if probe.process.poll() is None:
                probe.process.kill()


def judge_answers(tasks: list[Task], ours: Path, theirs: Path) -> list[Finding]:
    """Compare the answers of Lightning in the folder `ours` with those of Keras in `theirs`; findings by rung."""
    findings, unjudged, yardsticks = [], [], {suffix: [] for suffix in YARDSTICKS}
    for task in tasks:
        mine, other = Answer("Lightning", ours, task.name), Answer("Keras", theirs, task.name)
        if not needs_yardstick(task):
            findings += compare_answers(task, mine, other)
            continue
        unjudged += compare_answers(task, mine, other)
        for suffix in YARDSTICKS:
            yardsticks[suffix] += compare_answers(task, mine, Answer("Lightning again", ours, task.name + suffix))
    if unjudged:
        findings += judge_by_yardsticks(unjudged, *yardsticks.values(), tasks[0].config.hardware.precision)
    return sorted(findings, key=lambda finding: finding.rung)


def needs_yardstick(task: Task) -> bool:
    return task.kind in ("forward", "fit") and task.config.hardware.precision != "fp64"


def plan_yardsticks(tasks: list[Task]) -> list[Task]:
    """The tasks that Lightning computes again with other threads and in float64, to be compared with itself."""
    found = []
    for task in tasks:
        if needs_yardstick(task):
            other = 2 if task.config.hardware.threads == 1 else 1
            found += [Task(f"{task.name}-threads", task.kind, change_config(task.config, hardware__threads=other)),
                      Task(f"{task.name}-fp64", task.kind, change_config(task.config, hardware__precision="fp64"))]
    return found


def climb_ladder(config: Config, rungs: set[int] | None = None, **extent: object) -> list[Finding]:
    """Run both siblings and compare their answers on `rungs`, by default all, for a config as a user gives it.

    `extent` is passed on to `plan_tasks`. This needs up to 2 GB under `config.output_dir` while it runs.

    Raises:
        UserError: where the config, the data or an interpreter will not do.
    """
    base = strip_config(config)
    if not base.hardware.threads:  # both run at the same time, and too many threads for the cores slow both down
        base.hardware.threads = max(1, (os.cpu_count() or 2) // 2)
    with tempfile.TemporaryDirectory(prefix="parity-", dir=make_report_folder(config)) as place:
        folder = Path(place).absolute()
        tasks = plan_tasks(base, load_data(base), folder, rungs or set(RUNGS), **extent)
        run_probes({"Lightning": tasks + plan_yardsticks(tasks), "Keras": tasks}, folder)
        found = judge_answers(tasks, folder / "Lightning", folder / "Keras")
    return [finding for finding in found if not rungs or finding.rung in rungs]


def make_report_folder(config: Config) -> Path:
    folder = Path(config.output_dir).expanduser() / config.group
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output_dir: {folder} cannot be made ({error.strerror}); choose another") from None
    return folder


def find_first_failure(findings: list[Finding]) -> Finding | None:
    return next((finding for finding in sorted(findings, key=lambda item: item.rung) if not finding.passes), None)


def tabulate_rungs(findings: list[Finding]) -> Table:
    """A row for each rung, with the comparison that uses up most of its tolerance."""
    table = Table(["rung", "closest to its tolerance", "difference", "tolerance", "result"], [])
    for rung, name in RUNGS.items():
        on_rung = [finding for finding in findings if finding.rung == rung]
        if on_rung:
            top = max(on_rung, key=lambda finding: (not finding.passes, finding.strain))
            table.rows.append([f"{rung} {name}", top.what, *format_figures(top)])
    return table


def format_figures(finding: Finding) -> list[str]:
    tolerance = "equal" if finding.tolerance == 0 else f"{finding.tolerance:.2g}"
    return [f"{finding.figure:.2g}", tolerance, "pass" if finding.passes else "FAIL"]


def format_verdict(findings: list[Finding]) -> str:
    failure = find_first_failure(findings)
    if failure is None:
        return "All rungs pass."
    return f"First failure: rung {failure.rung} {RUNGS[failure.rung]}, {failure.what}. {failure.where}"


def format_report(findings: list[Finding], words: list[str], precision: str, seconds: float) -> str:
    """The report in Markdown: the command, its result, a row for each rung, and every comparison."""
    every = Table(["comparison", "difference", "tolerance", "result", "largest at"], [])
    measured = any(finding.threads is not None for finding in findings)
    if measured:
        every.header[1:1] = ["other threads", "from fp64"]
    for finding in findings:
        yardsticks = ["" if value is None else f"{value:.2g}" for value in (finding.threads, finding.rounding)]
        every.rows.append([f"{finding.rung} {finding.what}", *(yardsticks if measured else []),
                           *format_figures(finding), finding.where])
    yardstick = f"\n\n{YARDSTICK}" if measured else ""
    revision = read_git_state()
    state = f"{revision['revision'] or 'unknown'}{' with changes' if revision['dirty'] else ''}"
    return f"""# Parity of the siblings in {precision}

`{shlex.join([*COMMAND.split(), *words])}`, {seconds:.0f} s, revision {state}

{tabulate_rungs(findings).to_markdown()}

{format_verdict(findings)}{yardstick}

## Every comparison

{every.to_markdown()}
"""


def parse_command_line(words: list[str]) -> Config:
    """The config of a command line, whose precision is fp64 unless the command line itself names one.

    Raises:
        UserError: for a mistake in the command line or in a config file.
    """
    config = parse_config(words, COMMAND, PURPOSE)
    if not any(word.startswith("hardware.precision=") for word in words):
        config.hardware.precision = "auto"
    return config


def main(words: list[str]) -> bool:
    """Compare the siblings, print the result, write the report, and return whether all rungs pass."""
    config = parse_command_line(words)
    if len(list_siblings()) < 2:
        raise UserError(f"parity compares two siblings, and only {list_siblings()[0]}_project is here; make train "
                        "trains it")
    started = time.perf_counter()
    precision = find_precision(config)
    if config.augment.policy != "none":
        say(f"augment.policy={config.augment.policy} is left out: the siblings' policies differ in their draws")
    say(f"recording both siblings in {precision} on the CPU; this takes minutes")
    findings = climb_ladder(config)
    seconds = time.perf_counter() - started
    print(f"{tabulate_rungs(findings).to_text()}\n{format_verdict(findings)}  ({precision}, {seconds:.0f} s)")
    report = make_report_folder(config) / "parity.md"
    report.write_text(format_report(findings, words, precision, seconds), encoding="utf-8")
    print(f"report: {report}")
    return find_first_failure(findings) is None


def run_command() -> None:
    passes = main(sys.argv[1:])
    sys.exit(0 if passes else 1)


if __name__ == "__main__":
    report_errors(run_command)
