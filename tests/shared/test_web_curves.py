"""What the page of a comparison draws: the runs' curves, their bands over seeds, their colours, what is thinned out."""

import numpy as np
import pytest

from shared.compare.classes import summarise_run
from shared.compare.web import series
from shared.compare.web.disagreements import measure_distance
from shared.compare.web.series import collect_curves, describe_bins, thin
from shared.compare.web.sides import SHADES, form_groups, form_sides
from shared.machine.colours import COLOURS
from shared.runs.records import label_runs, read_run
from tests.shared.run_folders import EPOCHS, make_run


def read(*folders):
    return [read_run(folder) for folder in folders]


def collect(runs):
    return collect_curves(runs, label_runs(runs), form_groups(runs), [None] * len(runs))


def track_of(owner, metric):
    [track] = [track for track in owner["tracks"] if metric in track["values"]]
    return track


def row(samples, **values):
    return {"samples": samples, "epoch": samples / 1280, "time/train_s": samples / 640, **values}


def test_curves_of_a_run(tmp_path):
    data = collect(read(make_run(tmp_path)))
    track = track_of(data["lines"][0], "val/accuracy")
    assert track["x"] == [[1280, 2560, 3840, 5120], [1, 2, 3, 4], [2, 4, 6, 8]]
    assert track["values"]["val/accuracy"] == pytest.approx([high - 0.01 for high in EPOCHS])
    assert data["axes"][2].endswith(", seconds")
    assert data["bands"] == []
    assert data["thinned"] == 0
    assert [(chart["title"], chart["of"]) for chart in data["charts"]] == [
        ("loss", "curves"), ("accuracy", "curves"), ("learning rate", "curves"), ("images per second", "speed"),
        ("seconds of an epoch", "speed"), ("peak memory, GiB", "speed")]
    assert data["charts"][0]["metrics"] == {"train": "train/loss", "val": "val/loss"}


def test_rows_of_a_step_and_of_an_epoch_that_end_together_are_one_point(tmp_path):
    rows = [row(64, **{"train/loss_step": 3.0, "lr": 0.1}), row(1280, **{"train/loss_step": 2.0, "lr": 0.2}),
            row(1280, **{"train/loss": 2.5, "lr": 0.2})]
    [line] = collect(read(make_run(tmp_path, history=rows)))["lines"]
    assert track_of(line, "lr")["x"][0] == [64, 1280]
    assert track_of(line, "train/loss_step")["values"] == {"train/loss_step": [3, 2]}


def test_a_value_that_is_not_finite_is_a_gap(tmp_path):
    rows = [row(1280, **{"train/loss": 1.0}), row(2560, **{"train/loss": None}), row(3840, **{"train/loss": 0.5})]
    [line] = collect(read(make_run(tmp_path, history=rows)))["lines"]
    assert track_of(line, "train/loss")["values"]["train/loss"] == [1, None, 0.5]


def test_seeds_are_a_band_with_their_mean_lowest_and_highest(tmp_path):
    folders = [make_run(tmp_path, seed=seed, history=[
        row(1280, **{"val/loss": 1.0 + seed}) | {"time/train_s": 10.0 * (seed + 1)}]) for seed in (0, 1, 5)]
    other = make_run(tmp_path, "keras", history=[row(1280, **{"val/loss": 9.0})])
    data = collect(read(*folders, other))
    lightning, keras = data["bands"]
    assert (lightning["label"], lightning["lines"]) == ("lightning, 3 seeds", [0, 1, 2])
    assert track_of(lightning, "val/loss") == {"x": [[1280], [1], [30]], "values": {"val/loss": [3]},
                                               "low": {"val/loss": [1]}, "high": {"val/loss": [6]}}
    assert (keras["label"], keras["tracks"], keras["lines"]) == ("keras seed 0", [], [3])


def test_seeds_that_stopped_elsewhere_have_no_band(tmp_path):
    folders = [make_run(tmp_path, seed=seed, history=[row(1280 * (epoch + 1), **{"val/loss": 1.0, "lr": 0.1})
                                                      for epoch in range(2 + seed)]) for seed in (0, 1)]
    [band] = collect(read(*folders))["bands"]
    assert band["tracks"] == []


def test_groups_are_named_by_what_they_vary(tmp_path):
    folders = [make_run(tmp_path, "keras", seed, config={"optimizer.lr": rate}, stamp=f"2026010{number}-120000")
               for number, rate in enumerate((0.1, 0.2), start=1) for seed in (0, 1)]
    unfinished = make_run(tmp_path, "keras", 2, config={"optimizer.lr": 0.2}, finished=False)
    groups = form_groups(read(*folders, unfinished))
    assert [group.name for group in groups] == ["keras optimizer.lr=0.1, 2 seeds", "keras optimizer.lr=0.2, 2 seeds",
                                                "keras seed=2 optimizer.lr=0.2"]
    assert [group.places for group in groups] == [[0, 1], [2, 3], [4]]
    assert len({group.colour for group in groups}) == 3


@pytest.mark.parametrize(("frameworks", "expected"), [
    (["lightning", "keras"], [("lightning", [0]), ("keras", [1])]),
    (["keras", "keras"], [("keras seed 0", [0]), ("keras seed 1", [1])]),
    (["lightning", "lightning", "keras"], [("lightning", [0, 1]), ("keras seed 2", [2])]),
    (["keras"] * 3, [("keras", [0, 1, 2])])])
def test_sides(tmp_path, frameworks, expected):
    runs = read(*(make_run(tmp_path, framework, seed) for seed, framework in enumerate(frameworks)))
    assert [(side.name, side.places) for side in form_sides(runs)] == expected


def luminance(colour):
    """After WCAG 2.2, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    parts = [int(colour[place:place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("colour", [shade for shades in SHADES.values() for shade in shades])
def test_a_line_is_seen_on_light_and_on_dark_paper(colour):
    for paper in ("#ffffff", "#161616"):
        low, high = sorted((luminance(colour), luminance(paper)))
        assert (high + 0.05) / (low + 0.05) >= 3


def test_the_first_colour_is_that_of_all_pictures():
    assert {name: shades[0] for name, shades in SHADES.items()} == COLOURS


# Thinning

def test_a_thinned_curve_keeps_its_ends_its_extremes_and_its_gaps():
    values = np.sin(np.arange(10_000) / 300)
    values[[1234, 5678]] = 5, -5
    values[8000:8100] = np.nan
    x = np.stack([np.arange(10_000.0)] * 3)
    [part] = thin({"x": x, "values": {"loss": values}}, 100)
    kept = dict(zip(part["x"][0], part["values"]["loss"], strict=True))
    assert len(kept) <= 200
    assert {0, 1234, 5678, 9999} <= kept.keys()
    assert (kept[1234], kept[5678]) == (5, -5)
    assert None in kept.values()
    assert part["x"][0] == sorted(part["x"][0])


def test_many_long_runs_stay_small(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "MOST_VALUES", 4000)
    rows = [row(64 * (step + 1), **{"train/loss_step": step % 7 / 3, "lr": step % 5 / 7}) for step in range(400)]
    folder = make_run(tmp_path, history=rows)
    data = collect([read_run(folder)] * 20)
    values = sum(len(part) for line in data["lines"] for track in line["tracks"] for part in track["values"].values())
    assert 3500 <= values <= 4400
    assert data["thinned"] == 4000 // 40


# Answers

def test_distance_of_answers_by_hand():
    # Of each side four runs, and four images: all alike; never alike; half of one side as the other; 1/4 in common.
    first = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 2], [0, 0, 1, 3]])
    second = np.array([[0, 1, 0, 3], [0, 1, 0, 4], [0, 1, 0, 4], [0, 2, 0, 4]])
    assert measure_distance(first, second).tolist() == [0, 1, 0.5, 0.75]
    assert measure_distance(second, first).tolist() == [0, 1, 0.5, 0.75]


def test_bins_of_several_runs_are_those_of_all_their_images(tmp_path):
    runs = read(*(make_run(tmp_path, seed=seed, wrong=range(wrong)) for seed, wrong in ((0, 10), (1, 30))))
    confidence, accuracy, images = describe_bins([*map(summarise_run, runs), None])["as trained"]
    assert confidence == pytest.approx([np.e / (np.e + 9)], abs=1e-6)
    assert (accuracy, images) == ([0.6], [100])
