"""python -m shared.scores: the scores of a run's saved predictions, and the labels that may be wrong."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from shared.config import Config, read_kept_config
from shared.data.loading import load_data
from shared.errors import UserError
from shared.machine.files import REPOSITORY, write_arrays
from shared.runs.records import join_predictions
from shared.scores.__main__ import main
from tests.shared.run_folders import make_run, predictions


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, "keras")


def test_the_scores_of_a_run_are_printed_and_nothing_is_written(run, capsys):
    write_arrays(run / "predictions.npz", **join_predictions(predictions((0, 1)), predictions((4,))))
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    main([str(run)])
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{run / 'predictions.npz'}\n50 test images, and 50 validation images to fit ")
    lines = [" ".join(line.split()) for line in printed.out.splitlines()]
    assert "accuracy 98.00 %" in lines
    assert "4 5 4 100.00 % 80.00 % 88.89 % 5 (1)" in lines
    assert any(line.startswith("temperature 0.") for line in lines)
    assert printed.err == ""
    assert {path: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_of_an_older_run_what_is_missing_is_told(run, capsys):
    main([str(run)])
    printed = capsys.readouterr()
    assert "accuracy" in printed.out
    assert "no validation predictions, so no temperature and no sets" in printed.out
    assert "temperature  " not in printed.out
    assert printed.err == (f"predictions.npz was written by an older version; evaluate.py {run} writes a file with "
                           "both\n")


def test_what_evaluating_wrote_counts_where_it_has_more_or_nothing_else_is_there(run, capsys):
    write_arrays(run / "predictions_lightning.npz", **join_predictions(predictions((0,)), predictions(())))
    write_arrays(run / "predictions_keras.npz", **predictions((0,)))
    main([str(run)])
    assert capsys.readouterr().out.startswith(f"{run / 'predictions_lightning.npz'}\n")
    for name in ("predictions", "predictions_lightning"):
        (run / f"{name}.npz").unlink()
    main([str(run)])
    assert capsys.readouterr().out.startswith(f"{run / 'predictions_keras.npz'}\n")


@pytest.mark.parametrize(("damage", "words", "said"), [
    (lambda run: (run / "predictions.npz").unlink(), [], "has no predictions.npz, as its training has not ended"),
    (lambda run: (run / "run.json").unlink(), [], "is not a run folder: it has no run.json"),
    (lambda run: (run / "predictions.npz").write_bytes(b"PK"), [], "predictions.npz: cannot be read"),
    (lambda run: write_arrays(run / "predictions.npz", **predictions(()) | {"label": np.full(50, 10)}), [],
     "predictions.npz: labels from 10 to 10 for logits of 10 classes"),
    (lambda run: write_arrays(run / "predictions.npz", **predictions(()) | {"logits": np.full((50, 10), np.nan)}),
     ["--suspects"], "logits of test images are not finite"),
    (lambda run: None, ["--suspects", "0"], "--suspects 0: expected a number of images, 1 or more"),
    (lambda run: None, ["--suspects", "many"], "invalid int value: 'many'; see --help"),
    (lambda run: None, ["--suspect"], "unrecognized arguments: --suspect; see --help")])
def test_mistakes_are_told(run, damage, words, said):
    damage(run)
    with pytest.raises(UserError, match=said):
        main([str(run), *words])


def test_a_mistake_is_one_line_on_the_terminal(tmp_path):
    done = subprocess.run([sys.executable, "-m", "shared.scores", str(tmp_path / "none")], cwd=REPOSITORY,
                          capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (f"error: {tmp_path / 'none'} is not a run folder: there is no such folder; name one such as "
                           "runs/quickstart/lightning_seed0_...\n")


# Labels that may be wrong

def make_folder(root, classes="ab", images=6):
    """Images of noise; the first test images of all classes are the same one."""
    draws = np.random.default_rng(0)
    same = draws.integers(0, 256, (8, 8, 3), np.uint8)
    for split in ("train", "test"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for number in range(images):
                pixels = same if (split, number) == ("test", 0) else draws.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture
def folder_run(tmp_path):
    """A run on a folder of images, whose predictions doubt a label more than the others."""
    root = make_folder(tmp_path / "images")
    config = {"dataset.name": "image_folder", "dataset.root": str(root), "train.batch_size": 4,
              "dataset.val_fraction": 0.2}
    run = make_run(tmp_path / "runs", config=config)
    file = run / "config.yaml"
    data = load_data(read_kept_config(file.read_text(), file))
    record = json.loads((run / "run.json").read_text()) | {"classes": data.classes, "fingerprints": data.fingerprints()}
    (run / "run.json").write_text(json.dumps(record))
    label = np.repeat([0, 1], 6)
    logits = 4 * np.eye(2, dtype=np.float32)[label]
    logits[[3, 8]] = [[0, 2], [5, 0]]
    write_arrays(run / "predictions.npz", index=np.arange(12), label=label, logits=logits)
    return run


def test_suspects_are_told_with_their_files_and_copies_with_both_labels(folder_run, tmp_path, capsys):
    main([str(folder_run), "--suspects", "2"])
    printed = capsys.readouterr()
    lines = [" ".join(line.split()) for line in printed.out.splitlines()]
    assert lines[0] == f"images below {tmp_path / 'images'}"
    assert lines[3:5] == ["test/b/2.png b 0.0067 a 0.9933", "test/a/3.png a 0.12 b 0.8808"]
    assert lines[6:] == ["1 of 12 test images are there twice under two labels:", "test/a/0.png (a) = test/b/0.png (b)"]
    assert printed.err == ""


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_without_the_images_suspects_are_numbers(folder_run, tmp_path, capsys, damage):
    if damage == "gone":
        (tmp_path / "images").rename(tmp_path / "elsewhere")
    else:
        (tmp_path / "images" / "test" / "a" / "1.png").rename(tmp_path / "images" / "test" / "a" / "9.png")
    main([str(folder_run), "--suspects", "1"])
    printed = capsys.readouterr()
    assert [" ".join(line.split()) for line in printed.out.splitlines()][2:] == ["8 b 0.0067 a 0.9933"]
    assert printed.err.startswith("images have no names here, only numbers among the test images: ")
    assert printed.err.count("\n") == 1


def test_planted_label_errors_are_found(tmp_path, capsys):
    """Eighteen of the digits' 359 test images get a wrong label. All are among the first twenty of a model that is sure
    of the right ones."""
    test = load_data(Config()).test
    draws = np.random.default_rng(0)
    planted = draws.choice(len(test), 18, replace=False)
    label = test.labels.copy()
    label[planted] = (label[planted] + draws.integers(1, 10, 18)) % 10
    logits = 3 * np.eye(10)[test.labels] + draws.normal(scale=0.7, size=(len(test), 10))
    run = make_run(tmp_path)
    write_arrays(run / "predictions.npz", index=np.arange(len(test)), label=label, logits=logits.astype(np.float32))
    main([str(run), "--suspects"])
    rows = capsys.readouterr().out.splitlines()[2:22]
    found = {int(row.split()[0]) for row in rows}
    assert len(found & set(planted.tolist())) == 18
