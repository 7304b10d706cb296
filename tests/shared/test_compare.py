"""Comparison of made run folders: table, picture, page and seeds."""

import json

import numpy as np
import pytest

from shared.compare.facts import tabulate_facts
from shared.compare.page import format_text
from shared.compare.report import compare_runs
from shared.errors import UserError
from shared.runs.records import read_run
from tests.shared.run_folders import make_run, predictions, pretend_siblings


@pytest.fixture(autouse=True)
def both_here(monkeypatch):
    pretend_siblings(monkeypatch, "lightning", "keras")


# Table, picture, page

def row(table, title):
    return next(line for line in table.rows if line[0] == title)


def test_table_of_a_pair(pair):
    table = compare_runs(pair[::-1]).blocks[0]  # given as keras, lightning: the columns are the other way round
    assert table.header == ["", "lightning", "keras", "keras ÷ lightning"]
    assert [row(table, title)[1:] for title in ("test accuracy", "test loss", "first epoch, seconds",
                                                "images per second", "parameters", "precision")] == [
        ["96.00 %", "98.00 %", "+2.00 points"], ["0.1000", "0.2000", "2.000"], ["5.00", "10.00", "2.000"],
        ["640", "320", "0.500"], ["175,258", "175,258", "same"], ["bf16", "bf16", "same"]]


def test_files_and_verdict(pair, tmp_path):
    comparison = compare_runs(pair)
    assert comparison.verdict == "same experiment"
    assert comparison.picture.parent == comparison.page.parent == tmp_path / "quickstart"
    assert comparison.picture.read_bytes().startswith(b"\x89PNG")
    page = comparison.page.read_text()
    assert "# quickstart · digits · resnet18" in page
    assert "](comparison.png)" in page
    assert "| test accuracy | 96.00 % | 98.00 % | +2.00 points |" in page
    assert str(tmp_path) not in page


def test_other_experiment_is_labelled_so(tmp_path):
    folders = [make_run(tmp_path), make_run(tmp_path, "keras", config={"optimizer.lr": 0.1})]
    comparison = compare_runs(folders, tmp_path / "out")
    line = "optimizer.lr: lightning=0.02 keras=0.1"
    assert comparison.verdict == f"NOT the same experiment: {line}"
    assert "**NOT the same experiment.**" in comparison.page.read_text()
    assert f"- `{line}`" in comparison.page.read_text()
    assert f"NOT the same experiment. What differs:\n  {line}" in format_text(comparison)


def test_unfinished_run_has_dashes_and_is_told(tmp_path):
    comparison = compare_runs([make_run(tmp_path), make_run(tmp_path, "keras", finished=False)])
    assert row(comparison.blocks[0], "test accuracy")[1:] == ["98.00 %", "-", "-"]
    assert row(comparison.blocks[0], "parameters")[1:] == ["175,258", "175,258", "same"]
    assert "keras is unfinished: its curves end early and it has no scores." in comparison.blocks


def test_run_without_any_row_is_drawn(tmp_path):
    assert compare_runs([make_run(tmp_path, finished=False, history=[])]).picture.is_file()


def test_missing_value_is_a_dash(pair):
    content = json.loads((pair[0] / "result.json").read_text())
    (pair[0] / "result.json").write_text(json.dumps(content | {"perf/peak_memory_gib": None}))
    assert row(compare_runs(pair).blocks[0], "peak memory, GiB")[1:] == ["-", "1.50", "-"]


@pytest.mark.parametrize("count", [2, 3, 20])
def test_text_fits_a_terminal(tmp_path, count):
    device = {"device": "Intel(R) Xeon(R) Platinum 8581C CPU @ 2.10GHz, 2 threads (cpu)"}
    folders = [make_run(tmp_path, ("lightning", "keras")[number % 2], number // 2, record=device)
               for number in range(count)]
    told = format_text(compare_runs(folders, tmp_path))
    assert max(map(len, told.partition("\npicture: ")[0].splitlines())) <= 100
    assert "8581C" in told
    if count == 20:
        assert "keras seed 9" in told


def test_runs_of_other_revisions_are_told(tmp_path):
    folders = [make_run(tmp_path), make_run(tmp_path, "keras", record={"git": {"revision": "b" * 40}})]
    comparison = compare_runs(folders)
    assert comparison.differences == []
    assert any("different revisions" in block for block in comparison.blocks if isinstance(block, str))


def test_runs_on_other_numbers_of_devices_are_told(tmp_path):
    folders = [make_run(tmp_path, record={"devices": 1}), make_run(tmp_path, "keras", record={"devices": 2})]
    comparison = compare_runs(folders)
    assert comparison.differences == []
    assert "Speed and memory are of different numbers of devices (lightning=1 keras=2)." in comparison.blocks


def test_further_test_metrics_have_rows_of_their_own(pair):
    for folder, value in zip(pair, (0.75, 0.5), strict=True):
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(result | {"test/macro_f1": value, "test/margin": value}))
    (table, *_) = tabulate_facts([read_run(folder) for folder in pair])
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["test macro F1"] == ["75.00 %", "50.00 %", "−25.00 points"]
    assert rows["test margin"] == ["0.7500", "0.5000", "0.667"]


# Seeds

def test_seeds_by_hand(tmp_path):
    # 50 images; errors of lightning 1, 2, 3 and of keras 2, 4, 6, which contain lightning's: differences of −1, −2, −3
    # images, −2, −4 and −6 points. Mean −4, std 2, half width 4.30265 * 2 / sqrt(3) = 4.97 points.
    folders = [make_run(tmp_path, framework, seed, wrong=tuple(range((seed + 1) * times)))
               for framework, times in (("lightning", 1), ("keras", 2)) for seed in range(3)]
    comparison = compare_runs(folders, seeds=True)
    assert comparison.verdict == "same experiment up to the seed (3 seeds)"
    summary, images = (block for block in comparison.blocks[1:] if not isinstance(block, str))
    assert summary.rows == [["lightning", "3", "96.00 %", "2.00 %", "94.00 % .. 98.00 %"],
                            ["keras", "3", "92.00 %", "4.00 %", "88.00 % .. 96.00 %"]]
    # Exact p of 3 against 0 discordant images: 2 / 2**3; pooled 6 against 0: 2 / 2**6.
    assert images.rows == [["0", "50", "1", "0", "2.00 %", "1"], ["1", "50", "2", "0", "4.00 %", "0.5"],
                           ["2", "50", "3", "0", "6.00 %", "0.25"], ["pooled", "150", "6", "0", "4.00 %", "0.0312"]]
    said = " ".join(block for block in comparison.blocks if isinstance(block, str))
    assert ("over 3 seeds: −4.00 points; 95 % confidence interval (Student t) −8.97 points to +0.97 points." in said)
    assert "0 lies in the interval" in said
    assert "real with these 3 seeds is 4.97 points" in said
    assert said.count("find with 80 % probability") == 1
    assert "0 lies in the interval" in comparison.page.read_text()


def test_one_seed_has_no_interval(pair):
    said = " ".join(block for block in compare_runs(pair, seeds=True).blocks if isinstance(block, str))
    assert "in the one paired seed (0): +2.00 points." in said
    assert "there is no confidence interval" in said
    assert "nan" not in said


def test_newest_finished_run_of_a_seed_counts(tmp_path):
    old, new = (make_run(tmp_path, "lightning", stamp=stamp) for stamp in ("20260101-120000", "20260102-120000"))
    unfinished = make_run(tmp_path, "lightning", stamp="20260103-120000", finished=False)
    keras = make_run(tmp_path, "keras")
    comparison = compare_runs([new, old, unfinished, keras], seeds=True)
    assert [run.folder for run in comparison.runs] == [new, keras]
    assert "Left out: 2 unfinished or older runs of a seed." in comparison.blocks


def test_seed_without_partner_is_told(tmp_path):
    comparison = compare_runs([make_run(tmp_path), make_run(tmp_path, seed=3), make_run(tmp_path, "keras")], seeds=True)
    assert any(str(block).endswith("nothing pairs with them: 3.") for block in comparison.blocks)


@pytest.mark.parametrize("name", ["index", "label"])
def test_predictions_for_other_images_are_refused(pair, name):
    arrays = predictions((0,))
    arrays[name] = np.roll(arrays[name], 1)
    np.savez_compressed(pair[1] / "predictions.npz", **arrays)
    with pytest.raises(UserError, match=f"{pair[0].name} and {pair[1].name} differ in '{name}'"):
        compare_runs(pair, seeds=True)
