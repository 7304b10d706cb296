"""Siblings that are broken on purpose, and tasks of the ladder that cost little."""

from dataclasses import replace
from pathlib import Path

from shared.data.loading import load_data
from shared.parity import __main__ as command
from shared.parity.findings import Finding
from shared.parity.plan import Task, plan_tasks, strip_config

# The sibling that is broken, the first rung that must fail, and words of its report.
SABOTAGE = {
    "swapped_split": ("Keras", 1, "train samples"),
    "initialiser": ("Keras", 3, "weights drawn"),
    "padding": ("Keras", 4, "evaluation logits"),
    "shifted_schedule": ("Keras", 6, "step 1"),
    "batch_norm_momentum": ("Keras", 7, "running_"),
    "unweighted_classes": ("Keras", 5, "loss, focal"),
    "decoupled_decay": ("Keras", 7, "weight"),
    "macro_accuracy": ("Lightning", 8, "accuracy"),
}
STEPS = 10


def tasks_of(words, folder, rungs, steps=STEPS, models=("resnet18",), losses=()):
    base = strip_config(command.parse_command_line(words))
    base.hardware.threads = 1
    return plan_tasks(base, load_data(base), folder, rungs, optimizers=("sgd",), steps=steps, models=models,
                      losses=losses)


def name_tasks(tasks: list[Task], data: str) -> list[Task]:
    """The tasks with names of their own among those of other data sets."""
    return [replace(task, name=f"{task.name}-{data}") for task in tasks]


def climb_with_broken(name: str, place: Path) -> list[Finding]:
    """What the ladder finds of a broken sibling beside the other's answers to the digits, which are under `place`."""
    label, rung, _ = SABOTAGE[name]
    tasks = name_tasks(tasks_of([], place / f"broken-{name}", {asked for asked in (1, 3, 4, 6, 7) if asked <= rung},
                                losses=("focal",) if rung == 5 else ()), "digits")
    tasks = [task for task in tasks if "large" not in task.name]
    command.start_probe(label, tasks, place / name, Path(__file__).parent / "sabotage" / f"{name}.py").wait()
    answers = {"Lightning": place / "Lightning", "Keras": place / "Keras"} | {label: place / name}
    return command.judge_answers(tasks, *answers.values())


def assert_rung_is_named(name: str, findings: list[Finding]) -> None:
    _, rung, words = SABOTAGE[name]
    failure = command.find_first_failure(findings)
    assert failure is not None
    assert failure.rung == rung
    assert words in failure.what + failure.where
