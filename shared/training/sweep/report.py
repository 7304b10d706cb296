"""What a sweep leaves: tables, a picture, the answer to its question, and each sibling's best setting as a preset."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.compare.page import wrap
from shared.config import Config, flatten, format_yaml, to_dict
from shared.errors import UserError
from shared.machine.console import Table, format_percent
from shared.machine.files import write_whole
from shared.machine.hardware import describe_cpu
from shared.runs.records import read_json
from shared.training.sweep.definition import Sweep
from shared.training.sweep.picture import draw_sweep
from shared.training.sweep.results import answer_question, find_best
from shared.training.sweep.space import format_value, shorten_value
from shared.training.sweep.studies import compute_importance, list_trials

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

MOST_ROWS = 30  # of the table in a terminal; the page has all
STATES = {"PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


def write_report(sweep: Sweep, studies: dict[str, "Study"], address: str) -> None:
    """Write sweep.md, sweep.png and a preset for each sibling into the sweep's folder, and print what they say.

    Raises:
        UserError: where no trial has finished, or a file cannot be written.
    """
    counts = {sibling: count_states(study) for sibling, study in studies.items()}
    best = {sibling: trial for sibling, study in studies.items() if (trial := find_best(sweep, study))}
    if not best:
        raise UserError(f"sweep {sweep.name}: no trial has finished: {'; '.join(counts.values())}; what each process "
                        f"printed is in {sweep.folder}/*/processes")
    importance = {sibling: compute_importance(study) for sibling, study in studies.items()}
    said = [f"{sibling}: {words}" for sibling, words in counts.items()]
    tables = [tabulate_trials(sweep, studies)]
    if any(importance.values()):
        tables.append(tabulate_importance(sweep, importance))
    answer = answer_question(sweep, studies)
    presets = [write_preset(sweep, sibling, trial, counts[sibling]) for sibling, trial in best.items()]
    picture, page = sweep.folder / "sweep.png", sweep.folder / "sweep.md"
    write_whole(picture, lambda file: draw_sweep(sweep, studies, importance, file), apart=True)
    better = "lower" if sweep.direction == "min" else "higher"
    title = f"Sweep {sweep.name}: {sweep.metric}, {better} is better"
    text = "\n\n".join([f"# {title}", *said, *answer, "![the trials, the siblings compared, importance](sweep.png)",
                        *(table.to_markdown() for table in tables)]) + "\n"
    write_whole(page, lambda file: file.write_text(text, encoding="utf-8"), apart=True)
    shown = Table(shorten_keys(tables[0].header), tables[0].rows[:MOST_ROWS])
    print("\n".join([title, *said, "", shown.to_text(), "", *(f"{table.to_text()}\n" for table in tables[1:]),
                     *map(wrap, answer), "", f"page:      {page}", f"picture:   {picture}",
                     *(f"best:      {path}" for path in presets),
                     f"dashboard: optuna-dashboard {address}"]))


def shorten_keys(keys: list[str]) -> list[str]:
    """The keys without their sections, which a terminal has no room for, unless two would be the same."""
    names = [key.rpartition(".")[2] for key in keys]
    return names if len(set(names)) == len(names) else keys


def count_states(study: "Study") -> str:
    """How many trials ended how, in words."""
    names = [STATES.get(trial.state.name, "finished") for trial in list_trials(study)]
    return ", ".join(f"{names.count(name)} {name}" for name in ("finished", *STATES.values()) if name in names)


def tabulate_trials(sweep: Sweep, studies: dict[str, "Study"]) -> Table:
    """A row for each set of values, the best of any sibling first, with the metric in each sibling."""
    table = Table(["trial", *(one.key for one in sweep.space), *studies], [])
    by_number = [{trial.number: trial for trial in list_trials(study)} for study in studies.values()]
    sign = 1 if sweep.direction == "min" else -1

    def order(number: int) -> float:
        return min((sign * row[number].value for row in by_number if number in row and row[number].state.name ==
                    "COMPLETE"), default=float("inf"))
    for number in sorted(set().union(*by_number), key=order):
        trials = [row.get(number) for row in by_number]
        params = next((trial.params for trial in trials if trial and trial.params), {})
        values = [shorten_value(params[one.key]) if one.key in params else "" for one in sweep.space]
        table.rows.append([str(number + 1), *values, *map(describe_trial, trials)])
    return table


def describe_trial(trial: "FrozenTrial | None") -> str:
    if trial is None:
        return ""
    return f"{trial.value:.4f}" if trial.state.name == "COMPLETE" else STATES[trial.state.name]


def tabulate_importance(sweep: Sweep, importance: dict[str, dict[str, float]]) -> Table:
    table = Table(["importance of", *importance], [])
    first = next(filter(None, importance.values()))
    for one in sorted(sweep.space, key=lambda one: -first.get(one.key, 0)):
        table.rows.append([one.key, *(format_percent(found[one.key]) if one.key in found else "" for found in
                                      importance.values())])
    return table


def write_preset(sweep: Sweep, sibling: str, trial: "FrozenTrial", counts: str) -> Path:
    """Write a sibling's best setting as a config file that opens with its claim, and return its path. `counts` says how
    the sibling's trials ended."""
    words = {key: format_value(value) for key, value in trial.params.items()}
    config = sweep.build_trial(trial.number, words)
    config.experiment, config.output_dir = f"{sweep.name}_best", sweep.config.output_dir
    path = sweep.folder / f"best_{sibling}.yaml"
    facts = trial.user_attrs
    device, minutes = describe_cpu(), facts.get("time/train_s")
    run = Path(facts.get("run", ""))
    if (run / "run.json").is_file():
        device = read_json(run / "run.json").get("device", device)
    accuracy = facts.get("test/accuracy")
    lines = [f"The best setting that the sweep {sweep.name} found in the {sibling} sibling: trial {trial.number + 1}.",
             "", f"  python {sibling}_project/train.py {path}", "",
             f"hardware   {device}",
             f"minutes    {minutes / 60:.1f} of training" if minutes else "minutes    not measured",
             f"accuracy   test {format_percent(accuracy)}, one seed" if accuracy is not None else
             "accuracy   not measured yet",
             f"chosen by  {sweep.metric} {trial.value:.4f}, the best of: {counts}; test images chose nothing",
             f"searched   {', '.join(f'{one.key} ({one.describe()})' for one in sweep.space)}"]
    text = "".join(f"# {line}".rstrip() + "\n" for line in lines) + format_yaml(list_changes(config))
    write_whole(path, lambda file: file.write_text(text, encoding="utf-8"), apart=True)
    return path


def list_changes(config: Config) -> dict[str, Any]:
    """The values that differ from the schema's defaults, in nested dictionaries."""
    default, nested = flatten(to_dict(Config())), {}
    for dotted, value in flatten(to_dict(config)).items():
        if value != default[dotted]:
            *sections, name = dotted.split(".")
            place = nested
            for section in sections:
                place = place.setdefault(section, {})
            place[name] = value
    return nested
