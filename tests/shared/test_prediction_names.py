"""Names on standard input, and names of any bytes."""

import io
import os
import sys

import pytest

from shared.artifacts.prediction.command import run_command
from shared.machine.interpreters import list_siblings
from tests.shared.asking import build_compute, make_image

ENTRIES = [f"{sibling}_project/predict.py" for sibling in list_siblings()]


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
