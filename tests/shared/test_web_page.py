"""What the page of a comparison says, read without a browser."""

import json
import re
import shlex
from html import unescape

import numpy as np
import pytest

from shared.artifacts.description import KIND
from shared.compare.__main__ import main
from shared.compare.report import compare_runs
from shared.config import Config, parse_config, read_kept_values, to_yaml
from shared.data.preprocessing import Preprocessing
from tests.shared.pictures import make_pictures
from tests.shared.run_folders import LABELS, answer_own_images, make_run, predictions, pretend_siblings


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Both siblings are here, and no picture stands beside the page, since drawing it takes a second."""
    pretend_siblings(monkeypatch, "lightning", "keras")
    monkeypatch.setattr("shared.compare.curves.draw_comparison", lambda *arguments: arguments[-1].touch())


def read_page(folders, **options):
    return compare_runs(folders, html=True, **options).html.read_text(encoding="utf-8")


def section(page, name):
    """The text of a section, a line for each piece."""
    [found] = re.findall(rf'<section id="{name}">(.*?)</section>', page, re.DOTALL)
    return [unescape(line.strip()) for line in re.sub(r"<[^>]*>", "\n", found).splitlines() if line.strip()]


def test_the_command_writes_the_page_and_says_so(pair, tmp_path, capsys):
    assert main(["--html", "--output-dir", str(tmp_path)]) == 0
    assert re.search(r"^html: +\S+comparison\.html \(\d+ kB\)$", capsys.readouterr().out, re.MULTILINE)
    (tmp_path / "quickstart" / "comparison.html").unlink()
    assert main(["--output-dir", str(tmp_path)]) == 0
    assert "comparison.html" not in capsys.readouterr().out
    assert not (tmp_path / "quickstart" / "comparison.html").exists()


def test_it_needs_nothing_beside_it_and_names_its_library(pair):
    page = read_page(pair)
    own = page.replace("https://github.com/leeoniya/uPlot", "").replace("http://www.w3.org", "")
    assert not re.search(r"https?://|url\(|@import|<link (?!rel=\"icon\" href=\"data:,\")|<script src", own)
    assert "uPlot 1.6.32" in page
    assert "The MIT License" in page
    assert "Copyright (c) 2022 Leon Sorokin" in page
    assert len(page.encode()) < 200_000


def test_verdict_and_what_differs(tmp_path):
    folders = [make_run(tmp_path), make_run(tmp_path, "keras", config={"optimizer.lr": 0.1})]
    page = read_page(folders)
    assert "<b>Not the same experiment.</b> What differs:<ul>\n<li>optimizer.lr: lightning=0.02 keras=0.1</li>" in page
    assert "<b>Same experiment.</b>" in read_page([folders[0], make_run(tmp_path, "keras", stamp="20260102-120000")])


def test_scores_and_speed_of_a_pair(pair):
    page = read_page(pair)
    scores, speed = section(page, "scores"), section(page, "speed")
    assert scores[scores.index("test accuracy"):][:4] == ["test accuracy", "96.00 %", "98.00 %", "+2.00 points"]
    at = scores.index("accuracy, 95 % interval")
    assert scores[at + 1:at + 3] == ["86.54 to 98.90 %", "89.50 to 99.65 %"]
    assert "images per second" not in scores
    assert speed[speed.index("first epoch, seconds"):][:4] == ["first epoch, seconds", "5.00", "10.00", "2.000"]
    assert "Device: a processor, 2 threads (cpu)" in speed


def test_classes_and_what_they_are_taken_for(pair):
    page = read_page(pair)  # of five images in each class lightning has one of 0 and one of 1 wrong, keras one of 0
    classes = section(page, "classes")
    assert classes[classes.index("1"):][:7] == ["1", "5", "80.00 %", "100.00 %", "80.00 %", "90.91 %", "+20.00 points"]
    assert classes.index("1") < classes.index("0")  # the largest difference comes first
    assert page.count('<table class="confusion"') == 2
    assert "wrong answers: 2 of 50 test images." in section(page, "confusion")


def test_many_classes_and_their_rest(tmp_path):
    names = [f"kind {number}" for number in range(60)]
    folder = make_run(tmp_path, record={"classes": names})
    label = np.arange(120) % 60
    np.savez(folder / "predictions.npz", index=np.arange(120), label=label,
             logits=np.eye(60, dtype=np.float32)[np.where(np.arange(120) < 3, 59 - label, label)])
    page = read_page([folder])
    assert "the other 40 classes" in section(page, "classes")
    assert any(line.startswith("The 6 most confused of 60 classes; ") for line in section(page, "confusion"))
    assert 'class="confusion slanted"' in page


def test_seeds_are_told_and_added_up(tmp_path):
    folders = [make_run(tmp_path, framework, seed, wrong=(seed,)) for framework in ("lightning", "keras")
               for seed in (0, 1, 2)]
    page = read_page(folders, seeds=True)
    assert "Same experiment up to the seed (3 seeds)." in page
    assert any("over 3 seeds" in line for line in section(page, "scores"))
    confusion = section(page, "confusion")
    assert "lightning, 3 runs, added up" in confusion
    assert confusion.count("wrong answers: 3 of 150 test images.") == 2
    assert confusion.count("wrong answers: 1 of 50 test images.") == 6


def test_runs_with_other_classes_are_not_mixed(tmp_path):
    folders = [make_run(tmp_path), make_run(tmp_path, "keras", record={"classes": list("abcdefghij")})]
    page = read_page(folders)
    assert "Left out, with other classes or other test images than lightning: keras." in section(page, "classes")
    assert any("This takes two runs" in line for line in section(page, "disagreements"))
    assert page.count('<table class="confusion"') == 2


def test_an_unfinished_run_and_one_without_predictions(tmp_path):
    folders = [make_run(tmp_path, finished=False), make_run(tmp_path, "keras")]
    (folders[1] / "predictions.npz").unlink()
    with (folders[0] / "metrics.jsonl").open("a") as file:
        file.write('{"samples": 64')  # a row that is still being written
    page = read_page(folders)
    assert "lightning has no scores here: it is unfinished." in section(page, "scores")
    assert "keras has no scores here: it has no predictions.npz." in section(page, "scores")
    for name in ("classes", "confusion", "calibration"):
        assert section(page, name)[1] == "No run has predictions yet."


def test_a_run_that_has_logged_nothing(tmp_path):
    assert "No run has logged anything yet." in section(
        read_page([make_run(tmp_path, finished=False, history=[])]), "curves")


# Images

def test_images_that_are_not_there_are_told_and_numbered(pair):
    said = section(read_page(pair), "disagreements")
    assert said[1] == "All 1. Those come first of whose answers both are sure."
    assert "was tested on other images than digits has now" in said[2]
    assert said[-1] == "test image 1"
    assert [said[said.index(name) + 1] for name in ("keras", "lightning")] == ["1", "2"]


def test_nothing_is_downloaded_for_the_images(tmp_path, cache):
    folders = [make_run(tmp_path, name, config={"dataset.name": "cifar10"}, wrong=wrong)
               for name, wrong in (("lightning", (0,)), ("keras", (1,)))]
    assert "The images are not shown, since the data set cifar10 is not on this machine." in section(
        read_page(folders), "disagreements")
    assert not cache.exists()


def test_seeds_that_agree_among_themselves_come_first(tmp_path):
    root = make_pictures(tmp_path / "images", {f"{split}/{name}": count for name in ("ant", "bee")
                                               for split, count in (("train", 4), ("test", 3))})
    # Of six images: seeds of both siblings differ on the second, one seed of keras on the fourth.
    answers = {("lightning", 0): [0, 0, 0, 1, 1, 1], ("lightning", 1): [0, 0, 0, 1, 1, 1],
               ("keras", 0): [0, 1, 0, 1, 1, 1], ("keras", 1): [0, 1, 0, 0, 1, 1]}
    folders = [make_run(tmp_path, framework, seed, record={"classes": ["ant", "bee"]}, config={
        "dataset.name": "image_folder", "dataset.root": str(root), "dataset.image_size": 8, "train.batch_size": 4})
        for framework, seed in answers]
    for folder, given in zip(folders, answers.values(), strict=True):
        answer_own_images(folder, lambda labels, given=given: np.log(np.eye(2)[given] * 0.8 + 0.1))
    page = read_page(folders)
    cards = re.findall("<article>(.*?)</article>", page)
    assert [re.sub("<[^>]*>", " ", card).split() for card in cards] == [
        words.split() for words in (
            "image true ant lightning 2/2 ant with 90.0 %, right keras 2/2 bee with 90.0 %, wrong (true class 10.0 %) "
            "test/ant/001.png",
            "image true bee lightning 2/2 bee with 90.0 %, right keras 1/2 bee with 90.0 %, right keras 1/2 ant with "
            "90.0 %, wrong (true class 10.0 %) test/bee/000.png")]
    assert page.count("data:image/png;base64,") + page.count("data:image/jpeg;base64,") == 2


# Exported models

def write_export(run, **checks):
    folder = run / "exports" / "keras-onnx"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(bytes(2_000_000))
    (folder / "artifact.json").write_text(json.dumps({
        "kind": KIND, "format": "onnx", "maker": "keras", "quantisation": "", "input": "uint8", "run": run.name,
        "classes": list("0123456789"), "preprocessing": Preprocessing.of_config(Config()).to_dict(), "weights": "w0",
        "checks": {"passed": True, "accuracy": 0.98, "delta_logits": 2e-6, "logits_range": 12.3, "equal_answers": 50,
                   "images": 50, "source": "50 test images"} | checks}))


def test_exported_models_stand_in_a_table(pair):
    assert '<section id="exports">' not in read_page(pair)
    write_export(pair[0])
    said = section(read_page(pair), "exports")
    assert "answers: 50 test images." in said[1]
    assert said[-7:] == ["onnx", "keras", "2.0", "98.00 %", "2.0e-06", "12.3", "50/50"]


def test_an_export_that_did_not_pass_is_told(pair):
    write_export(pair[0], passed=False, reasons=["logits differ by 3"])
    assert any("is not to be used: logits differ by 3" in line for line in section(read_page(pair), "exports"))


# Commands

def test_the_commands_give_the_same_config_and_seed(tmp_path, monkeypatch):
    given = {"optimizer.lr": 0.123, "dataset.mean": [0.5], "dataset.std": [0.25], "train.metrics": ["top5"],
             "experiment": r"it's \${odd}", "tracking.tags": ["007", "a: b"]}
    folders = [make_run(tmp_path, "lightning", config=given, seed=3, group="a b"),
               make_run(tmp_path, "keras", seed=3, config={**given, "optimizer.lr": 0.5}, group="a b", record={
                   "environment": {"TF_XLA_FLAGS": "--a --b"}, "git": {"dirty": True}})]
    page = read_page(folders)
    commands = section(page, "commands")
    scripts = [unescape(found) for found in re.findall("<pre>(.*?)</pre>", page, re.DOTALL)]
    assert len(scripts) == 2
    assert "The code had changes that are in no revision, so these commands may give other numbers." in commands
    monkeypatch.chdir(tmp_path)
    for folder, script in zip(folders, scripts, strict=True):
        lines = script.splitlines()
        assert lines[0] == f"git checkout {'a' * 40}"
        name = re.fullmatch(r"cat > (\S+) <<'END'", lines[1])[1]
        end = lines.index("END")
        (tmp_path / name).write_text("\n".join(lines[2:end]) + "\n")
        command = shlex.split(lines[end + 1])
        if "keras" in folder.name:
            assert command.pop(0) == "TF_XLA_FLAGS=--a --b"
        assert command[:2] == ["python", f"{folder.name.partition('_')[0]}_project/train.py"]
        again, kept = tmp_path / "again.yaml", read_kept_values(folder / "config.yaml")
        again.write_text(to_yaml(parse_config(command[2:], "", "")))
        assert read_kept_values(again) == kept
        assert lines[-1] == "python -m shared.compare --html --group 'a b'"


def test_runs_of_one_config_share_its_file(tmp_path):
    folders = [make_run(tmp_path, framework, seed) for framework in ("lightning", "keras") for seed in (0, 1)]
    [script] = re.findall("<pre>(.*?)</pre>", read_page(folders), re.DOTALL)
    assert script.splitlines()[-5:] == [
        *(f"python {framework}_project/train.py experiment.yaml seed={seed}" for framework in ("lightning", "keras")
          for seed in (0, 1)), "python -m shared.compare --html --group quickstart --seeds"]


def test_predictions_that_are_not_finite_are_told(pair):
    arrays = predictions((0,), LABELS)
    arrays["logits"][0, 0] = np.nan
    np.savez(pair[0] / "predictions.npz", **arrays)
    said = section(read_page(pair), "scores")
    assert any(line.startswith("lightning has no scores here: logits of test images are not finite") for line in said)
