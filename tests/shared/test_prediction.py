"""The command line of predict.py with a model that needs no framework: rows, mistakes, exit statuses."""

import csv
import gc
import io
import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.errors import UserError
from shared.machine.files import REPOSITORY
from shared.machine.interpreters import list_siblings
from shared.prediction import answers, rows
from shared.prediction.command import is_key, run_command
from tests.shared.asking import BESIDE, CERTAIN, CLASSES, ask, build_compute, make_image, make_run, write_bomb

ENTRIES = [f"{sibling}_project/predict.py" for sibling in list_siblings()]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run")
    return tmp_path


@pytest.fixture
def asked(here, monkeypatch, capsys):
    return lambda *words, **options: ask(monkeypatch, capsys, "run", *words, **options)


def test_the_softmax_is_as_computed_by_hand():
    around = [math.exp(-distance * distance) for distance in range(-5, 6)]
    assert pytest.approx(1 / sum(around), abs=1e-7) == CERTAIN
    assert pytest.approx(math.exp(-1) / sum(around), abs=1e-7) == BESIDE


# Rows

def test_rows_of_csv(here, asked):
    for digit in (3, 5):
        make_image(here / f"{digit}.png", digit)
    status, out, err = asked("5.png", "3.png", "5.png")
    assert (status, err) == (0, [])
    assert out[0] == "path,class,probability,error"
    assert [line.split(",")[:2] for line in out[1:]] == [["5.png", "5"], ["3.png", "3"], ["5.png", "5"]]
    assert [float(line.split(",")[2]) for line in out[1:]] == pytest.approx([CERTAIN] * 3, abs=1e-4)


def test_the_most_probable_classes_and_all_logits(here, asked):
    make_image(here / "a.png", 4)
    status, out, _ = asked("a.png", "--top", "3", "--logits", "--format", "jsonl")
    row = json.loads(out[0])
    assert (status, len(out)) == (0, 1)
    assert list(row) == ["path", "class", "probability", "class_2", "probability_2", "class_3", "probability_3",
                         *(f"logit_{name}" for name in CLASSES), "error"]
    assert [row[name] for name in ("class", "class_2", "class_3")] == ["4", "3", "5"]  # of equals the first class
    assert row["probability_2"] == row["probability_3"] == pytest.approx(BESIDE, abs=1e-4)
    assert [row[f"logit_{name}"] for name in CLASSES] == [-16, -9, -4, -1, 0, -1, -4, -9, -16, -25]
    assert row["error"] is None


def test_classes_whose_probability_is_zero_keep_the_order_of_their_logits():
    prediction = answers.Prediction("a.png", "", ("a", "b", "c"), np.array([-2000, -1000, 0], np.float32))
    assert prediction.rank(3) == [("c", 1), ("b", 0), ("a", 0)]


def test_logits_keep_each_bit():
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    prediction = answers.Prediction("a.png", "", tuple(map(str, range(1000))), values)
    row = rows.Layout(prediction.classes, logits=True).arrange(prediction)
    assert np.array_equal(np.array(row[3:-1], np.float32), values)


def read_table(path):
    """Columns and rows of a file of any of the formats."""
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        found = parquet.read_table(path).to_pylist()
    elif path.suffix == ".jsonl":
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        with path.open(encoding="utf-8", newline="") as file:
            found = [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]
    return list(found[0]), found


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.PARQUET", "out.parquet"])
def test_a_file_of_each_format_holds_the_same(here, asked, name):
    make_image(here / "t" / "3" / 'comma, "quote".png', 3)
    make_image(here / "t" / "3" / "return\r.png", 3)
    make_image(here / "t" / "5" / "späße\n2.png", 6)
    (here / "t" / "5" / "x.png").write_text("an apple")
    status, out, err = asked("t", "--out", name)
    assert (status, out) == (1, [])
    assert err == ["accuracy 66.67 % (2 of 3 images with a label)",
                   "1 of 4 images have no answer; the column error says why"]
    (here / name).rename(here / name.lower())
    columns, found = read_table(here / name.lower())
    assert columns == ["path", "label", "class", "probability", "error"]
    assert [[row[column] for column in ("path", "label", "class", "error")] for row in found] == [
        ['t/3/comma, "quote".png', "3", "3", None], ["t/3/return\r.png", "3", "3", None],
        ["t/5/späße\n2.png", "5", "6", None],
        ["t/5/x.png", "5", None, "no known image format"]]
    assert [row["probability"] and float(row["probability"]) for row in found] == [
        *[pytest.approx(CERTAIN, abs=1e-4)] * 3, None]
    assert sorted(os.listdir(here)) == sorted([name.lower(), "run", "t"])


def test_a_parquet_file_that_is_given_up_is_one_line(here, asked, monkeypatch):
    pytest.importorskip("pyarrow")
    make_image(here / "a.png", 1)
    (here / "b.png").touch()
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    status, _, err = asked("a.png", "b.png", "--out", "out.parquet", "--stop-on-bad")
    gc.collect()
    assert (status, len(err), complaints) == (2, 1, [])


def test_parquet_is_written_in_groups(here, asked, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(rows, "GROUP", 2)
    make_image(here / "a.png", 1)
    assert asked(*["a.png"] * 5, "--out", "out.parquet")[0] == 0
    facts = parquet.ParquetFile("out.parquet").metadata
    assert [facts.row_group(number).num_rows for number in range(facts.num_row_groups)] == [2, 2, 1]


def test_an_old_file_stays_whole_where_work_stops(here, asked):
    (here / "out.csv").write_text("old")
    make_image(here / "a.png", 1)
    (here / "b.png").touch()
    status, _, err = asked("a.png", "b.png", "--out", "out.csv", "--stop-on-bad")
    assert status == 2
    assert err == ["error: b.png: empty file; without --stop-on-bad, it becomes a row with its error"]
    assert (here / "out.csv").read_text() == "old"
    assert not (here / "out.csv.unfinished").exists()
    assert asked("a.png", "--out", "out.csv")[0] == 0
    assert (here / "out.csv").read_text().count("\n") == 2


# Names on standard input, and names of any bytes

def test_names_on_standard_input(here, asked):
    make_image(here / "a b.png", 2)
    status, out, err = asked("-", names=b"a b.png\r\n\nnowhere.png\na b.png")
    assert (status, err) == (1, ["1 of 3 images have no answer; the column error says why"])
    assert [line.split(",")[::3] for line in out[1:]] == [["a b.png", ""], ["nowhere.png", "No such file or directory"],
                                                          ["a b.png", ""]]


@pytest.mark.parametrize("names", [b"", b"\n\n", None])
def test_no_names_at_all_are_a_mistake(here, asked, names):
    assert asked("-", "--out", "out.csv", names=names) == (2, [], ["error: no image is named on standard input"])
    assert os.listdir(here) == ["run"]


def test_bytes_on_standard_input_are_no_names(here, asked):
    status, out, err = asked("-", names=b"\x89PNG\0\0")
    assert (status, out, len(err)) == (2, [], 1)
    assert "other bytes than names" in err[0]


def test_names_that_are_not_utf8(here, asked):
    (here / "f").mkdir()
    image = make_image(here / "a.png", 7)
    name = os.fsencode(here / "f") + b"/caf\xe9.png"
    try:
        os.rename(image, name)
    except OSError:
        pytest.skip("this file system knows no such names")
    for words, names in ((["f"], None), (["-"], b"f/caf\xe9.png\n"), ([os.fsdecode(b"f/caf\xe9.png")], None)):
        for form in ("csv", "jsonl"):
            status, out, err = asked(*words, "--format", form, names=names)
            assert (status, err) == (0, [])
            assert r"f/caf\xe9.png" in out[-1].replace("\\\\", "\\")
    status, _, err = asked(os.fsdecode(b"caf\xe9.png"))
    assert (status, len(err)) == (2, 1)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_standard_output_is_utf8_in_every_locale(here, monkeypatch, form):
    make_image(here / "späße 日本.png", 3)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["predict.py", "run", "späße 日本.png", "--format", form])
    with pytest.raises(SystemExit):
        run_command(build_compute, "keras", "Ask.")
    assert "späße 日本.png" in sys.stdout.buffer.getvalue().decode()


# Files that cannot be read

BAD = {
    "text": (lambda path: path.write_text("an apple\n"), "no known image format"),
    "empty": (lambda path: path.touch(), "empty file"),
    "bomb": (write_bomb, "it has more than the "),
    "vanished": (lambda path: path.symlink_to("nothing.png"), "No such file or directory"),
    "truncated": (lambda path: path.write_bytes(truncate(path)), "image file is truncated"),
    "icon": (lambda path: Image.new("L", (16, 16)).save(path, "ICO"), "no known image format"),
    "drawing": (lambda path: Image.new("L", (16, 16)).save(path, "EPS"), "no known image format"),
    "pipe": (os.mkfifo, "a pipe or a device"),
    "circle": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "float": (lambda path: Image.new("F", (8, 8)).save(path, "TIFF"), "32-bit pixels without a known range"),
}


def truncate(path):
    Image.effect_noise((64, 64), 50).save(path)
    return path.read_bytes()[:2000]


@pytest.mark.parametrize(("damage", "reason"), BAD.values(), ids=BAD)
def test_an_unreadable_file_is_a_row_and_status_1(here, asked, damage, reason):
    make_image(here / "a.png", 3)
    damage(here / "bad.png")
    status, out, err = asked("bad.png", "a.png", "--top", "2", "--logits")
    assert status == 1
    assert err == ["1 of 2 images have no answer; the column error says why"]
    bad, good = csv.DictReader(out)
    assert bad["error"].startswith(reason)
    assert (good["class"], good["error"], float(good["logit_3"])) == ("3", "", 0)
    assert {value for name, value in bad.items() if name not in ("path", "error")} == {""}
    status, out, err = asked("bad.png", "a.png", "--stop-on-bad")
    assert (status, out, len(err)) == (2, [], 1)
    assert err[0].startswith(f"error: bad.png: {reason}")


def test_numbers_that_are_not_finite_are_an_error(here, asked):
    make_image(here / "a.png", 3)
    status, out, _ = asked("a.png", build=lambda trained: lambda images: np.full((len(images), 10), np.nan))
    assert status == 1
    assert "not finite" in out[1]


@pytest.mark.parametrize(("error", "hint"), [(MemoryError(), "set train.eval_batch_size to less"), (KeyError(), None)])
def test_memory_that_runs_out_is_one_line(here, asked, error, hint):
    make_image(here / "a.png", 3)

    def build(trained):
        def compute(images):
            raise error
        return compute
    if hint is None:
        with pytest.raises(KeyError):
            asked("a.png", build=build)
        return
    status, out, err = asked("a.png", build=build)
    assert (status, out, len(err)) == (2, [], 1)
    assert hint in err[0]


# Mistakes

@pytest.mark.parametrize(("words", "hint"), [
    ([], "name images after run"),
    (["nowhere.png"], "nowhere.png does not exist"),
    (["empty"], "empty holds no images at any depth"),
    (["a.png", "--top", "11"], "--top 11 is out of range, since the model knows 10 classes"),
    (["a.png", "--top", "0"], "--top 0 is out of range"),
    (["a.png", "--top", "many"], "argument --top: invalid int value: 'many'; see --help"),
    (["a.png", "--best"], "unrecognized arguments: --best; see --help"),
    (["a.png", "--format", "xml"], "invalid choice: 'xml'"),
    (["a.png", "--format", "parquet"], "use --out FILE.parquet"),
    (["a.png", "--format", "csv", "--out", "x.csv"], "leave --format out"),
    (["a.png", "--out", "x.txt"], "has to end in .csv, .jsonl or .parquet"),
    (["a.png", "--out", "nowhere/x.csv"], "--out nowhere/x.csv cannot be written (No such file or directory)"),
    (["a.png", "--out", "folder.csv"], "--out folder.csv is a folder"),
    (["a.png", "train.epochs=3"], "train.epochs has no effect on a trained model"),
    (["a.png", "seeed=3"], "seeed has no effect on a trained model"),
    (["a.png", "train.eval_batch_size=0"], "train.eval_batch_size=0 is out of range"),
    (["x/train.epochs=3.png"], "x/train.epochs=3.png does not exist"),
])
def test_a_mistake_is_one_line_before_the_model_is_loaded(here, asked, words, hint):
    (here / "empty").mkdir()
    (here / "folder.csv").mkdir()
    make_image(here / "a.png", 3)
    before = sorted(os.listdir(here))

    def build(trained):
        raise AssertionError("the model was loaded")
    status, out, err = asked(*words, build=build)
    assert (status, out, len(err)) == (2, [], 1), err
    assert hint in err[0]
    assert sorted(os.listdir(here)) == before


@pytest.mark.parametrize(("run", "hint"), [
    ("nowhere", "nowhere does not exist; name a run folder"),
    ("a.png", "a.png is no model that is read here"),
    ("unfinished", "best.safetensors does not exist; name a run folder that has finished an epoch"),
    ("--logits", "name a run folder, a .safetensors file or an exported model first"),
])
def test_a_run_that_is_none_is_one_line(here, monkeypatch, capsys, run, hint):
    make_image(here / "a.png", 3)
    (here / "unfinished").mkdir()
    status, out, err = ask(monkeypatch, capsys, run, *([] if run.startswith("-") else ["a.png"]))
    assert (status, out, len(err)) == (2, [], 1)
    assert hint in err[0]


def test_a_closed_standard_output_is_one_line(here, asked, monkeypatch):
    make_image(here / "a.png", 3)
    monkeypatch.setattr(sys, "stdout", None)
    status, _, err = asked("a.png")
    assert (status, err) == (2, ["error: standard output is closed; name a file with --out FILE"])


def test_pyarrow_that_is_not_installed_is_one_line(here, asked, monkeypatch):
    monkeypatch.setattr(rows.importlib.util, "find_spec", lambda name: None)
    make_image(here / "a.png", 3)
    status, _, err = asked("a.png", "--out", "x.parquet")
    assert (status, len(err)) == (2, 1)
    assert "pip install pyarrow" in err[0]


def test_ctrl_c_is_one_line_and_leaves_nothing(here, asked):
    def build(trained):
        def compute(images):
            raise KeyboardInterrupt
        return compute
    make_image(here / "a.png", 3)
    status, out, err = asked("a.png", "--out", "x.csv", build=build)
    assert (status, out, err) == (130, [], ["", "stopped"])
    assert sorted(os.listdir(here)) == ["a.png", "run"]


def test_a_word_is_a_file_where_there_is_one(here, asked):
    (here / "train.eval_batch_size=1").touch()
    assert not is_key("train.eval_batch_size=1")
    assert is_key("train.eval_batch_size=2")
    assert not is_key("*_batch_size=?")
    assert is_key("*_rate=?")


def test_the_batch_size_can_be_set(here, asked):
    make_image(here / "a.png", 3)
    sizes = []

    def build(trained):
        compute = build_compute(trained)
        return lambda images: sizes.append(len(images)) or compute(images)
    assert asked(*["a.png"] * 5, "train.eval_batch_size=2", build=build)[0] == 0
    assert sizes == [2, 2, 1]


# Exported models

@pytest.fixture
def exported(here, monkeypatch):
    """An exported model of the digits, answered for by a stand-in of its runtime."""
    from shared.artifacts import description, runtimes
    from shared.batches.preprocessing import Preprocessing
    from shared.config import Config

    seen = Preprocessing.of_config(Config())
    folder = here / "run" / "exports" / "keras-onnx"
    folder.mkdir(parents=True)
    (folder / "model.onnx").touch()
    (folder / description.DESCRIPTION).write_text(json.dumps({
        "kind": description.KIND, "format": "onnx", "maker": "keras", "quantisation": "", "input": "uint8",
        "classes": CLASSES, "preprocessing": seen.to_dict(), "checks": {"passed": True}}), encoding="utf-8")
    asked_for = []

    def load(artifact, threads):
        asked_for.append((artifact.name, threads))
        compute = build_compute(seen)
        return lambda images: (compute(images), None)
    monkeypatch.setattr(runtimes, "load_artifact", load)
    return folder, asked_for


@pytest.mark.parametrize("name", ["", "model.onnx"])
def test_an_exported_model_answers_without_the_sibling(here, exported, monkeypatch, capsys, name):
    folder, asked_for = exported
    make_image(here / "a.png", 3)
    status, out, err = ask(monkeypatch, capsys, folder / name, "a.png", "hardware.threads=2", build=None)
    assert (status, err, asked_for) == (0, [], [("keras-onnx", 2)])
    assert out[1].startswith("a.png,3,0.5641")


def test_a_key_that_means_nothing_to_an_exported_model_is_one_line(here, exported, monkeypatch, capsys):
    make_image(here / "a.png", 3)
    status, _, err = ask(monkeypatch, capsys, exported[0], "a.png", "hardware.precision=bf16")
    assert (status, len(err)) == (2, 1)
    assert "hardware.precision has no effect on an exported model" in err[0]


# Pipes, disks, terminals

@pytest.fixture
def many(here):
    make_image(here / "a.png", 3)
    (here / "names").write_text(f"{here / 'a.png'}\n" * 1500, encoding="utf-8")
    return here


def test_a_closed_pipe_ends_quietly(many):
    command = (f"{sys.executable} -m tests.shared.asking {many / 'run'} - --logits < {many / 'names'} | head -n 2; "
               "echo ${PIPESTATUS[0]}")
    done = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines()[0].startswith("path,class,")
    assert done.stdout.splitlines()[-1] == "141"


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.parquet"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(many, asked, monkeypatch, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    monkeypatch.setattr(rows, "GROUP", 100)
    (many / name).write_text("old")
    names = (many / "names").read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        status, _, err = asked("-", "--logits", "--out", name, names=names)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    gc.collect()
    assert (status, len(err), complaints) == (2, 1, [])
    assert f"{name} cannot be written (File too large)" in err[0]
    assert (many / name).read_text() == "old"
    assert not (many / f"{name}.unfinished").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_standard_output_that_is_full_is_one_line(many):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([sys.executable, "-m", "tests.shared.asking", many / "run", many / "a.png"], text=True,
                              cwd=REPOSITORY, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("entry", ENTRIES)
def test_help_of_the_siblings_loads_no_framework(entry):
    program = f"import runpy, sys; sys.argv = ['predict.py', '--help']\ntry:\n    runpy.run_path({entry!r}, " \
              "run_name='__main__')\nfinally:\n    loaded = {'torch', 'tensorflow', 'PIL', 'omegaconf'} & " \
              "set(sys.modules)\n    print(*loaded, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert f"usage: python {entry} RUN SOURCE..." in done.stdout
    assert (done.returncode, done.stderr) == (0, "\n")


# In a program

def test_a_program_hands_over_names_images_and_arrays(here):
    name = make_image(here / "a.png", 3)
    grey, colour = np.full((8, 8, 1), 100, np.uint8), np.full((8, 8, 3), 120, np.uint8)
    given = [name, here / "a.png", Image.new("RGB", (8, 8), (80, 80, 80)), grey, colour, "nowhere.png"]
    found = list(answers.predict_images(build_compute, here / "run", given, ["train.eval_batch_size=4"]))
    assert [row.class_name for row in found] == ["3", "3", "4", "5", "6", ""]
    assert [row.path for row in found] == [name, name, "", "", "", "nowhere.png"]
    assert found[0].logits.tolist() == [-9, -4, -1, 0, -1, -4, -9, -16, -25, -36]
    assert found[0].rank(2) == [("3", found[0].probability), ("2", pytest.approx(BESIDE, abs=1e-4))]
    assert (found[5].error, found[5].logits, found[5].rank(2)) == ("No such file or directory", None, [])
    assert math.isnan(found[5].probability)


@pytest.mark.parametrize(("image", "hint"), [
    (np.zeros((8, 8, 4), np.uint8), r"a uint8 of shape \(8, 8, 4\)"), (np.zeros((8, 8, 3)), "a float64 of shape"),
    (np.zeros((8, 8), np.uint8), r"\(8, 8\)"), (b"bytes", "a bytes;")])
def test_what_is_no_image_is_refused(here, image, hint):
    with pytest.raises(UserError, match=hint):
        list(answers.predict_images(build_compute, here / "run", [image], []))


def test_an_image_of_a_camera_held_upright_is_answered_alike_as_file_and_image(here):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees to see it
    half = Image.new("L", (16, 8))
    half.paste(200, (0, 0, 8, 8))
    half.save(here / "a.png", exif=exif)

    def keep(trained):
        return lambda images: images.reshape(len(images), -1)[:, ::7].astype(np.float32)
    with Image.open(here / "a.png") as image:
        file, memory = answers.predict_images(keep, here / "run", [here / "a.png", image], [])
    assert np.ptp(file.logits) > 0
    assert file.logits.tolist() == memory.logits.tolist()


@pytest.mark.parametrize("image", ["a.png", Path("a.png"), Image.new("L", (8, 8))])
def test_a_single_image_is_refused_at_the_call(here, image):
    with pytest.raises(UserError, match="give a list"):
        answers.predict_images(build_compute, here / "run", image, [])


def test_a_missing_run_is_told_at_the_call(here):
    with pytest.raises(UserError, match="nowhere does not exist"):
        answers.predict_images(build_compute, "nowhere", [], [])
