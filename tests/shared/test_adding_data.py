"""A data set of one's own: an entry and its reader, as a user adds them, and what is said about mistakes in them."""

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from shared.config import Config
from shared.config.rules import validate_dataset
from shared.data import definition
from shared.data.definition import Definition, Download
from shared.data.definitions import DEFINITIONS
from shared.data.download import locate_files
from shared.data.loading import load_data
from shared.errors import UserError
from shared.machine.interpreters import is_installed, list_siblings
from tests.documented import copy_repository

READER = """
import numpy as np


def read_squares(definition, folder):
    with np.load(folder / "squares.npz") as file:
        return (file["train"], file["train_labels"]), (file["test"], file["test_labels"])
"""
ENTRY = """
    "squares": Definition(
        source="mine", licence="mine", paper="", mean=(0.5,), std=(0.25,), image_size=8, reader="squares",
        classes=("top", "bottom"), members=("squares.npz",){more}),
"""


def write_squares(file):
    """Grey images of 8 x 8 pixels that are white in their upper or in their lower half."""
    labels = np.arange(120, dtype=np.uint8) % 2
    pixels = np.zeros((120, 8, 8, 1), np.uint8)
    pixels[labels == 0, :4] = pixels[labels == 1, 4:] = 255
    np.savez(file, train=pixels[:100], train_labels=labels[:100], test=pixels[100:], test_labels=labels[100:])


def add_squares(tree, more="", reader=READER):
    """Add the data set `squares` to a copy of the repository, with further facts in its entry."""
    place = tree / "shared" / "data"
    definitions = (place / "definitions.py").read_text()
    head = "DEFINITIONS = {\n"
    assert definitions.count(head) == 1
    (place / "definitions.py").write_text(definitions.replace(head, head + ENTRY.format(more=more).lstrip("\n")))
    (place / "readers" / "squares.py").write_text(reader)


def run_copy(copy, *words):
    return subprocess.run(words, cwd=copy, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(copy)})


def test_adding_a_data_set_with_a_download(tmp_path, server, cache):
    """Training with one that lies in a folder is the guide's example, see tests/test_changing.py."""
    sibling = next(filter(is_installed, list_siblings()), None)
    if sibling is None:
        pytest.skip("no sibling is installed")
    write_squares(tmp_path / "squares.npz")
    content = (tmp_path / "squares.npz").read_bytes()
    server.files["squares.npz"] = content
    copy = copy_repository(tmp_path / "copy")
    add_squares(copy, f", folders=('squares',), downloads=(Download('{server.address('squares.npz')}', "
                      f"'{hashlib.md5(content).hexdigest()}', 1),)")
    done = run_copy(copy, sys.executable, f"{sibling}_project/train.py", "dataset.name=squares", "output_dir=runs",
                    "experiment=seam", "tracking.mode=disabled", "hardware.threads=1", "train.epochs=1",
                    "train.batch_size=16", "schedule.warmup_epochs=0")
    assert done.returncode == 0, done.stderr
    assert f"downloading {server.address('squares.npz')} (1 MB) to {cache / 'squares' / 'squares.npz'}" in done.stderr
    assert server.requests == ["squares.npz"]
    run, = copy.glob("runs/seam/*")
    facts, result = (json.loads((run / name).read_text()) for name in ("run.json", "result.json"))
    assert (facts["sizes"], facts["classes"]) == ({"train": 90, "val": 10, "test": 20}, ["top", "bottom"])
    assert 0 <= result["test/accuracy"] <= 1


@pytest.mark.parametrize(("more", "reader", "message"), [
    ("", "", "the data set 'squares' has reader='squares', but shared/data/readers/squares.py has no function "
     "read_squares; write it"),
    (", train_images=90", READER, "read_squares, the reader of the data set 'squares', returns 100 training images; "
     "expected 90, as the entry says"),
    (", folders=('squares')", READER, "the entry 'squares' of shared/data/definitions.py has folders='squares'; "
     "expected a tuple, and one of a single value ends in a comma: ('squares',)"),
], ids=["no function", "wrong number", "no tuple"])
def test_a_mistake_is_one_line_and_status_2(tmp_path, more, reader, message):
    copy = copy_repository(tmp_path / "copy")
    add_squares(copy, more, reader)
    write_squares(tmp_path / "squares.npz")
    script = ("from shared.data.loading import load_data; from shared.config.command import run_command; "
              "run_command(load_data, 'lightning', 'train.py', '')")
    done = run_copy(copy, sys.executable, "-c", script, "dataset.name=squares", f"dataset.root={tmp_path}")
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")


@pytest.fixture
def squares(tmp_path, monkeypatch):
    """Defines the data set `squares` with what its reader returns, and returns its config."""
    def define(given=None, **facts):
        entry = Definition(source="mine", licence="mine", paper="", mean=(0.5,), std=(0.25,), image_size=8,
                           reader="squares", classes=("top", "bottom"))
        monkeypatch.setitem(DEFINITIONS, "squares", replace(entry, **facts))
        monkeypatch.setattr(definition, "READERS", tmp_path)
        (tmp_path / "squares.py").touch()
        reader = ModuleType("squares")
        reader.read_squares = lambda *_: given
        monkeypatch.setitem(sys.modules, "shared.data.readers.squares", reader)
        config = Config()
        config.dataset.name, config.train.batch_size = "squares", 4
        return config
    return define


def images(count=40, size=8, channels=1, dtype=np.uint8):
    return np.zeros((count, size, size, channels), dtype)


LABELS = np.arange(40) % 2
RIGHT = images(), LABELS


def test_what_a_reader_returns_is_used(squares):
    data = load_data(squares(((images(), LABELS.astype(np.uint8)), (images(), LABELS))))
    assert data.train.labels.dtype == data.test.labels.dtype == np.int64
    assert (len(data.train), len(data.val), len(data.test)) == (36, 4, 40)


@pytest.mark.parametrize(("given", "message"), [
    (None, "returns NoneType; expected two pairs (pixels, labels), of the training and of the test images"),
    (images(), "returns an array (40, 8, 8, 1) uint8; expected two pairs"),
    ((images(), LABELS, images(), LABELS), "returns a tuple of 4; expected two pairs"),
    (((images().tolist(), LABELS), RIGHT), "pixels as a list of 40; expected an array (n, 8, 8, 1) uint8"),
    (((images(dtype=np.float32), LABELS), RIGHT), "training pixels as an array (40, 8, 8, 1) float32; expected an"),
    (((images()[..., 0], LABELS), RIGHT), "training pixels as an array (40, 8, 8) uint8; expected"),
    (((images(size=9), LABELS), RIGHT), "since the entry has image_size=8 and mean for 1 channel"),
    (((images(channels=3), LABELS), RIGHT), "as an array (40, 8, 8, 3) uint8; expected an array (n, 8, 8, 1) uint8"),
    (((images(), LABELS[:39]), RIGHT), "labels as an array (39,) int64; expected an array (40,) of whole numbers"),
    (((images(), LABELS / 1), RIGHT), "training labels as an array (40,) float64; expected"),
    (((images(), np.eye(2)[LABELS]), RIGHT), "training labels as an array (40, 2) float64"),
    (((images(), LABELS + 1), RIGHT), "training labels from 1 to 2; expected 0 to 1, since the entry lists 2 classes"),
    (((images(), LABELS - 1), RIGHT), "training labels from -1 to 0; expected 0 to 1"),
    (((images(), LABELS * 0), RIGHT), "no training image of class 'bottom'; the entry lists 2 classes and 1"),
])
def test_a_reader_that_returns_something_else(squares, given, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load_data(squares(given))
    assert str(caught.value).startswith("read_squares, the reader of the data set 'squares', returns")


def test_a_mistake_among_the_test_images(squares):
    with pytest.raises(UserError, match=r"returns test labels from 0 to 2; expected 0 to 1"):
        load_data(squares(((images(), LABELS), (images(), np.arange(40) % 3))))


FILE = Download("http://127.0.0.1/squares.npz", "0" * 32, 1)


@pytest.mark.parametrize(("facts", "message"), [
    ({"mean": 0.5}, "has mean=0.5; expected a tuple"),
    ({"mean": (0.5, 0.5, 0.5)}, "has 3 values of mean and 1 of std"),
    ({"mean": (0.5, 0.5), "std": (0.5, 0.5)}, "has 2 values of mean and 2 of std; expected one of each"),
    ({"mean": (127.0,)}, "has mean=(127.0,) and std=(0.25,); expected those of pixels scaled to 0..1"),
    ({"std": (0.0,)}, "std above 0"),
    ({"image_size": (8, 8)}, "has image_size=(8, 8); expected height and width in pixels, as a whole number"),
    ({"reader": "circles"}, "has reader='circles', but shared/data/readers/circles.py does not exist; write it, "
     "with a function read_circles in it"),
    ({"classes": ()}, "has classes=(); a data set with a reader needs the names of at least two classes"),
    ({"classes": ("top", "top")}, "each once"),
    ({"downloads": (FILE,), "folders": ("squares",)}, "has downloads, but no folders or no members"),
    ({"downloads": (FILE,), "members": ("squares.npz",)}, "has downloads, but no folders or no members"),
    ({"downloads": (replace(FILE, md5="unknown"),), "folders": ("a",), "members": ("b",)},
     "has md5='unknown' for squares.npz; expected 32 hexadecimal digits"),
    ({"downloads": (FILE, replace(FILE, address="a.tgz")), "folders": ("a",), "members": ("b",)},
     "has an archive among several downloads"),
])
def test_an_entry_that_contradicts_itself_is_told_with_the_config(squares, facts, message):
    config = squares(**facts)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        validate_dataset(config)
    assert str(caught.value).startswith("the entry 'squares' of shared/data/definitions.py has")


def test_a_data_set_of_ones_own_that_has_no_address_needs_a_root(cache):
    own = replace(DEFINITIONS["digits"], members=("squares.npz",), folders=(".",))
    with pytest.raises(UserError, match=r"name the folder that holds squares\.npz with dataset\.root"):
        locate_files(own, "")
