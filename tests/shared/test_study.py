"""The comparison of structures: what is trained, what is recorded, and the section of docs/results.md."""

import json
import sys

import pytest

from shared.errors import UserError
from shared.machine.files import REPOSITORY, write_json
from shared.machine.interpreters import list_siblings
from shared.machine.pages import place_section
from shared.training.study import command
from shared.training.study.page import COMMAND, format_section
from shared.training.study.picture import draw_study, find_front
from shared.training.study.records import collect_study
from shared.training.sweep.grid import list_points
from tests.shared.run_folders import make_run
from tests.shared.sweeps import install_stub

WORDS = ["configs/study/fashion_mnist.yaml", "output_dir=runs", "model.name=resnet18,vit_tiny"]


def points(*words):
    return list_points([*WORDS, *words], list_siblings())


def finish(root, point, multiply_adds=82_310_944, wrong=(0,)):
    """Leave what a training of the point leaves, in the folder `root`."""
    group = root / "runs" / point.config.group
    keys = {"dataset.name": "fashion_mnist", "dataset.limit_train": 3000, "augment.flip": True, "train.epochs": 2,
            "model.name": point.config.model.name, "dataset.root": "somewhere"}
    run = make_run(root / "runs", point.sibling, point.config.seed, point.config.group, config=keys, wrong=wrong)
    write_json(run / "multiply_adds.json", {"multiply_adds": multiply_adds})
    (group / "processes" / run.name.rpartition("_")[0]).mkdir(parents=True)
    write_json(group / "processes" / run.name.rpartition("_")[0] / "process.json", {"words": list(point.words)})


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Of resnet18 in every sibling; vit_tiny has not been trained."""
    monkeypatch.chdir(tmp_path)
    for point in points()[:len(list_siblings())]:
        finish(tmp_path, point)
    return collect_study(points(), ["train.epochs=2", "dataset.root=somewhere"], "Alone.")


def test_a_row_for_each_finished_training_and_a_reason_for_the_others(study):
    assert [(row["name"], row["sibling"]) for row in study["rows"]] == [("resnet18", name) for name in list_siblings()]
    row = study["rows"][0]
    assert (row["accuracy"], row["multiply_adds"], row["train_seconds"]) == (0.98, 82_310_944, 8.0)
    # Wilson's interval of 49 of 50: (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n), with z = 1.96.
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx((0.89504, 0.99646), abs=1e-5)
    assert [(one["name"], one["sibling"], one["reason"]) for one in study["left_out"]] == [
        ("vit_tiny", name, "not trained yet") for name in list_siblings()]
    assert study["command"] == ["train.epochs=2"]  # and not where the data are
    assert study["config"] == {"dataset.name": "fashion_mnist", "dataset.limit_train": 3000, "augment.flip": True,
                               "train.epochs": 2}
    assert (study["sizes"], study["date"], study["note"]) == (
        [{"train": 1280, "val": 140, "test": 50}], "20260101-1", "Alone.")


def test_seeds_are_rows_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [first, second, *_] = grid = [point for point in points("seed=0,1") if point.sibling == list_siblings()[0]
                                  and point.config.model.name == "resnet18"]
    finish(tmp_path, first)
    finish(tmp_path, second, wrong=(0, 1))
    assert [(row["name"], row["accuracy"]) for row in collect_study(grid, [], "")["rows"]] == [
        ("resnet18 seed=0", 0.98), ("resnet18 seed=1", 0.96)]


def test_the_page_has_what_the_record_has(study):
    page = format_section(study)
    for words in ("python -m shared.study train.epochs=2\n", "| `resnet18` | 175,258 | 82.3 M | 98.00 % (89.5 to 99.6)",
                  "`augment.flip=true`", "revision aaaaaaaaaa; ", "Alone.", "![", ": not trained yet"):
        assert words in page
    assert page.count("- Left out: ") == 1


def test_the_page_of_this_repository_agrees_with_its_record():
    page = REPOSITORY / "docs" / "results.md"
    study = json.loads((REPOSITORY / "docs" / "study.json").read_text(encoding="utf-8"))
    assert place_section(page, COMMAND, format_section(study)) == page.read_text(encoding="utf-8")


def test_the_front_is_what_nothing_as_cheap_beats():
    assert find_front([(3, 0.9), (1, 0.7), (2, 0.6), (1, 0.5), (4, 0.9), (5, 0.95)]) == [(1, 0.7), (3, 0.9), (5, 0.95)]


def test_the_picture_is_drawn_where_something_is_missing(study, tmp_path):
    study["rows"][0]["multiply_adds"] = None
    study["rows"] = study["rows"][:1]
    draw_study(study, tmp_path / "study.png")
    header = (tmp_path / "study.png").read_bytes()[:24]
    assert [int.from_bytes(header[place:place + 4], "big") for place in (16, 20)] == [1920, 880]


# The command

def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["study", *WORDS, *words])
    command.main()


def test_the_command_writes_a_page_of_its_own(study, tmp_path, monkeypatch, capsys):
    run(monkeypatch, "--report", "--into", "out", "--note", "Alone.")
    assert json.loads((tmp_path / "out" / "study.json").read_text())["rows"] == study["rows"]
    assert (tmp_path / "out" / "study.png").stat().st_size > 10_000
    assert "98.00 % (89.5 to 99.6)" in (tmp_path / "out" / "results.md").read_text()
    assert f"left out: {list_siblings()[0]} vit_tiny: not trained yet" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "message"), [
    (["model.name=resnt18"], "model.name='resnt18' is not one of .*did you mean 'resnet18'"),
    (["--only", "resnet34"], "--only: resnet34 is not among the models of this study, which are resnet18, vit_tiny"),
    (["--into", "."], r"results\.md has no place for what make study writes; put these two lines"),
    (["--into", "taken/below"], "--into: taken/below cannot be made"),
    (["--report"], "no training of this study has finished; .* resnet18: not trained yet"),
])
def test_a_mistake_is_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results.md").write_text("# Mine\n")
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=message):
        run(monkeypatch, *words)


def test_what_is_asked_for_is_trained_and_a_failure_is_told(tmp_path, monkeypatch):
    stub = install_stub(tmp_path, monkeypatch)
    monkeypatch.setenv("FAIL_ABOVE", "0")
    with pytest.raises(UserError, match=r"no training of this study has finished; \w+ resnet18: the loss is nan"):
        run(monkeypatch, "--only", "resnet18")
    assert [(call["sibling"], call["model.name"]) for call in stub.calls] == [
        (sibling, "resnet18") for sibling in list_siblings()]
