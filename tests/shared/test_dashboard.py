"""The dashboard's specification, and its command without an account: what is written, and mistakes in one line."""

import json
import sys
from functools import partial

import pytest

from shared.machine.colours import COLOURS
from shared.machine.ending import report_errors
from tests.shared.run_folders import EPOCHS, make_run, pretend_siblings

pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed; the extra dashboard brings it")

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style")  # of wandb-workspaces 0.4 itself
CURVES = ["val/loss", "train/loss", "train/loss_step", "val/accuracy", "train/accuracy", "lr",
          "perf/images_per_second", "perf/epoch_seconds", "perf/peak_memory_gib"]


@pytest.fixture
def ask(nobody, monkeypatch, capsys):
    """The command in this process: its status, what it printed, and what it told."""
    def run(*words):
        from shared.compare.dashboard.command import main

        pretend_siblings(monkeypatch, "lightning", "keras")
        monkeypatch.setattr("shared.compare.dashboard.experiments.list_siblings", lambda: ("lightning", "keras"))
        monkeypatch.setattr(sys, "argv", ["dashboard", *words])
        status = 0
        try:
            report_errors(main)
        except SystemExit as error:
            status = error.code
        return status, *capsys.readouterr()
    return run


@pytest.fixture
def runs(nobody, tmp_path):
    return tmp_path / "runs"


def read_sections(specification):
    return specification["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]


def read_grids(specification):
    return [block["metadata"] for block in specification["report"]["spec"]["blocks"] if block["type"] == "panel-grid"]


def read_texts(specification):
    return [block.get("content") or block["children"][0]["text"] for block in specification["report"]["spec"]["blocks"]]


def plotted(panels, kind, key):
    return [panel["config"][key] for panel in panels if panel["viewType"] == kind]


@pytest.fixture
def specification(ask, runs):
    for framework in COLOURS:
        for seed in (0, 1):
            make_run(runs, framework, seed=seed)
    make_run(runs, "keras", group="other", config={"optimizer.lr": 0.3}, history=[
        {"samples": 64, "epoch": 1.0, "time/train_s": 2.0, "val/top3": 0.5, "perf/epoch_seconds": 2.0}])
    status, out, err = ask()
    assert (status, err) == (0, "")
    assert out == ("specification: runs/dashboard.json (other, quickstart)\nnot saved:     no API key of W&B is "
                   "configured; run `wandb login` and this command again to save it\n")
    return json.loads((runs / "dashboard.json").read_text())


def test_the_workspace_has_each_curve_over_images_and_over_time_and_the_test_scores_between(specification):
    sections = read_sections(specification)
    titles = [section["name"] for section in sections]
    kinds = ["Loss", "Accuracy", "Learning rate", "Speed", "Memory", "Further metrics"]
    assert titles == [*(f"{kind} over training images seen" for kind in kinds), "Test scores",
                      *(f"{kind} over wall clock of training" for kind in kinds), "Settings"]
    for axis, part in (("samples", sections[:6]), ("time/train_s", sections[7:13])):
        panels = [panel for section in part for panel in section["panels"]]
        assert plotted(panels, "Run History Line Plot", "metrics") == [[name] for name in (*CURVES, "val/top3")]
        assert set(plotted(panels, "Run History Line Plot", "xAxis")) == {axis}
        assert {section["localPanelSettings"]["xAxis"] for section in part} == {axis}
    scores = plotted(sections[6]["panels"], "Bar Chart", "metrics")
    assert scores[:3] == [["test/accuracy"], ["test/loss"], ["test/macro_f1"]]
    assert plotted(sections[6]["panels"], "Media Browser", "mediaKeys") == [["test/confusion"], ["test/reliability"]]
    [table] = plotted(sections[6]["panels"], "Weave", "panel2Config")
    assert table["exp"]["fromOp"]["inputs"]["key"]["val"] == "test/predictions"


def test_every_curve_that_a_run_logs_is_shown(specification, runs):
    history = next(runs.glob("quickstart/*/metrics.jsonl")).read_text().splitlines()
    assert len(history) == len(EPOCHS)
    logged = {name for row in history for name in json.loads(row)}
    assert logged - set(CURVES) == {"samples", "epoch", "time/train_s"}


def test_runs_are_grouped_by_experiment_and_coloured_by_sibling(specification):
    section = specification["workspace"]["spec"]["section"]
    [runs] = section["runSets"]
    assert runs["grouping"] == [{"section": "run", "name": "group"}, {"section": "config", "name": "framework.value"}]
    [chosen] = runs["filters"]["filters"]
    assert (chosen["key"], chosen["op"], chosen["value"]) == (
        {"section": "run", "name": "group"}, "IN", ["other", "quickstart"])
    colours = section["customRunColors"]
    for framework, colour in COLOURS.items():
        assert colours[f"{framework}_seed1_20260101-120000"] == colour
        of_groups = [found for name, found in colours.items() if "run-color-group" in name and framework in name]
        assert of_groups == [colour, colour]
    for grid in read_grids(specification):
        [runs] = grid["runSets"]
        assert runs["grouping"] == [{"section": "config", "name": "framework.value"}]
        assert runs["filters"]["filters"][0]["value"] == runs["name"]
        assert "project" not in runs  # that of the report
        for framework, colour in COLOURS.items():
            assert grid["customRunColors"][f"{runs['id']}-config:framework.value:{framework}"] == colour


def test_the_report_says_of_each_experiment_what_the_comparison_says(specification):
    texts = read_texts(specification)
    assert texts.index("other") < texts.index("quickstart")
    assert "**One run, nothing to compare it with.**" in texts
    assert "**Same experiment up to the seed (2 seeds).**" in texts
    tables = [text for text in texts if text.startswith("| run | test acc |")]
    assert [len(table.splitlines()) for table in tables] == [6]
    assert "| keras seed 1 | 98.00 % |" in tables[0]
    assert any(text.startswith("| test accuracy | n | mean | std |") for text in texts)


def test_parallel_coordinates_have_the_keys_in_which_runs_differ(specification):
    [columns] = plotted(read_sections(specification)[-1]["panels"], "Parallel Coordinates Plot", "columns")
    assert [column["accessor"] for column in columns] == [
        "config:framework.value", "config:seed.value", "config:optimizer.value.lr",
        "summary:perf/images_per_second", "summary:test/accuracy"]


def test_what_differs_between_runs_is_in_the_report(ask, runs):
    make_run(runs, "lightning")
    make_run(runs, "keras", config={"train.epochs": 9})
    assert ask()[0] == 0
    texts = read_texts(json.loads((runs / "dashboard.json").read_text()))
    assert "**NOT the same experiment.**" in texts
    assert any("- `train.epochs: " in text for text in texts)


@pytest.mark.parametrize("group", ["it's \"so\"", "a\\b, c]", "grün🙂", "a + b"])
def test_a_group_of_any_name_is_chosen_by_its_name(ask, runs, group):
    make_run(runs, group=group)
    make_run(runs, group="other")
    assert ask("--group", group, "--project", "mine")[0] == 0
    found = json.loads((runs / group / "dashboard.json").read_text())
    assert found["workspace"]["project"] == found["report"]["project"] == "mine"
    for [chosen] in (part["runSets"] for part in (found["workspace"]["spec"]["section"], *read_grids(found))):
        assert chosen["filters"]["filters"][0]["value"] in (group, [group])


def test_a_run_that_is_still_written_is_passed_over(ask, runs):
    make_run(runs)
    unfinished = make_run(runs, "keras", finished=False)
    status, _, err = ask()
    assert status == 0
    assert err == (f"passed over: {unfinished.relative_to(runs.parent)} has not finished; it is shown when this "
                   "command is run again after its end\n")
    assert unfinished.name not in (runs / "dashboard.json").read_text()


# Mistakes

def damage(folder, name):
    (folder / name).write_text("{")


@pytest.mark.parametrize(("words", "prepare", "said"), [
    (["--group", "quickstar"], None, "did you mean 'quickstart'?"),
    (["--group", "empty"], lambda run: (run.parent.parent / "empty").mkdir(), "no finished run in runs/empty"),
    ([], lambda run: (run / "result.json").unlink(), "no finished run in runs"),
    ([], partial(damage, name="result.json"), "result.json: not valid JSON"),
    ([], partial(damage, name="config.yaml"), "config.yaml: not valid YAML"),
    (["--output-dir", "none"], None, "--output-dir none is not a folder"),
    (["--out", "runs/quickstart/file"], lambda run: (run.parent / "file").touch(), "choose another folder with --out"),
    (["--out", "/proc/self"], None, "choose another folder with --out"),
    ([], lambda run: make_run(run.parents[1], group="far", config={"tracking.project": "far"}),
     "choose one with --project"),
    (["--grup"], None, "unrecognized arguments: --grup; see --help"),
])
def test_mistakes_are_one_line_and_leave_what_was_there(ask, runs, words, prepare, said):
    run = make_run(runs)
    (runs / "dashboard.json").write_text("before")
    if prepare:
        prepare(run)
    status, out, err = ask(*words)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    assert (runs / "dashboard.json").read_text() == "before"


def test_without_the_package_a_line_names_it(ask, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    status, _, err = ask()
    assert status == 2
    assert err.startswith("error: wandb-workspaces is not installed here; pip install 'wandb-workspaces>=0.4'")
    assert err.count("\n") == 1


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_where_wandb_is_switched_off_nothing_is_sent(ask, runs, monkeypatch, mode):
    make_run(runs)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", mode)
    status, out, _ = ask()
    assert status == 0
    assert f"not saved:     W&B is {mode} here" in out
