"""Mistakes, unreadable files, pipes and full disks: what predict.py says of them, and what it leaves behind."""

import csv
import gc
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from shared.artifacts.prediction import rows
from shared.artifacts.prediction.command import is_key
from shared.machine.files import REPOSITORY
from shared.machine.interpreters import list_siblings
from tests.shared.asking import ask, build_compute, make_image, write_bomb

ENTRIES = [f"{sibling}_project/predict.py" for sibling in list_siblings()]


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
