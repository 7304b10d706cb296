"""The gallery: which images it shows, what the page says of them, and its mistakes, each told in one line."""

import re
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from shared.errors import UserError
from shared.machine.ending import report_errors
from shared.runs.records import read_run
from shared.scores.gallery import report
from shared.scores.gallery.answers import read_answers
from shared.scores.gallery.command import main
from shared.scores.gallery.maps import choose_sibling, explain_answers
from shared.scores.gallery.selection import find_confident_mistakes, find_disagreements, find_unsure_hits
from tests.shared.pictures import make_pictures
from tests.shared.run_folders import answer_own_images, make_run

CLASSES = ("<b>", "cat", "dog")
# The probabilities that two runs give to the classes for six test images, of which two are of each class.
SURE = np.array([[.8, .1, .1], [.5, .3, .2], [.1, .6, .3], [.7, .2, .1], [.1, .9, .0], [.2, .2, .6]]) + 1e-9
OTHER = np.array([[.9, .05, .05], [.4, .5, .1], [.1, .8, .1], [.1, .1, .8], [.1, .2, .7], [.2, .1, .7]]) + 1e-9
MISTAKES, HITS = [4, 3], [1, 2, 5, 0]  # of SURE


@pytest.fixture
def images(tmp_path):
    return make_pictures(tmp_path / "images", {f"{split}/{name}": count for split, count in (("train", 4), ("test", 2))
                                               for name in CLASSES})


@pytest.fixture
def tested(tmp_path, images):
    """A function that makes a finished run, which gave these probabilities to the test images."""
    def make(framework="lightning", shares=SURE, root=images, **more):
        folder = make_run(tmp_path / "runs", framework, config={
            "dataset.name": "image_folder", "dataset.root": str(root), "dataset.image_size": 8,
            "train.batch_size": 4}, **more)
        answer_own_images(folder, lambda labels: np.log(shares))
        return folder
    return make


@pytest.fixture(autouse=True)
def explained(monkeypatch):
    """Maps that are high in the upper left corner, in place of a sibling's process; the rows asked for, by sibling."""
    asked = {}

    def explain(answers, rows):
        asked[answers.run.framework] = rows.tolist()
        maps = np.zeros((len(rows), 4, 4), np.float32)
        maps[:, 0, 0] = 2
        return maps
    monkeypatch.setattr(report, "explain_answers", explain)
    return asked


@pytest.fixture
def undrawn(monkeypatch):
    """No picture beside the page, since drawing it takes a second."""
    monkeypatch.setattr("shared.scores.gallery.sheet.draw_sheet", lambda title, sections, path: path.touch())


class Page(HTMLParser):
    """What is on a page: its text, its pictures, the headings, and the classes of its cards."""

    def __init__(self, path):
        super().__init__()
        self.text, self.pictures, self.tags, self.open = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs))
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style" and data.strip():
            self.text.append(data.strip())


def run_gallery(monkeypatch, *words):
    """The exit status of `python -m shared.gallery`."""
    monkeypatch.setattr(sys, "argv", ["gallery", *map(str, words)])
    try:
        report_errors(main)
    except SystemExit as left:
        return left.code
    return 0


# What is shown

def test_selection(tested):
    first, second = read_answers(tested()), read_answers(tested("keras", OTHER))
    assert find_confident_mistakes(first).tolist() == MISTAKES
    assert find_unsure_hits(first).tolist() == HITS
    # Images 1, 3 and 4, of which the less sure answers have 0.5, 0.7 and 0.7.
    assert find_disagreements(first, second).tolist() == [3, 4, 1]
    assert find_disagreements(first, first).tolist() == []


def test_a_page_of_one_run(tested, explained, monkeypatch, capsys):
    folder = tested()
    assert run_gallery(monkeypatch, folder, "--count", "3") == 0
    assert explained == {"lightning": sorted({*MISTAKES, *HITS[:3]})}
    page = Page(folder / "gallery.html")
    text = " ".join(page.text)
    assert "lightning: 6 test images, 66.67 % right" in text
    assert "lightning: the most confident mistakes All 2." in text
    assert "lightning: the least sure hits The first 3 of 4." in text
    assert "disagree" not in text
    # The image and its map, for two mistakes and three hits; a class called <b> is no tag.
    names = [picture["alt"] for picture in page.pictures]
    assert names[0::2] == [f"test/{CLASSES[row // 2]}/{row % 2:03}.png" for row in [*MISTAKES, *HITS[:3]]]
    assert names[1::2] == ["Grad-CAM, lightning"] * 5
    assert "true dog lightning cat with 90.0 %, wrong (true class 0.0 %) test/dog/000.png" in text
    assert "true <b> lightning <b> with 50.0 %, right test/<b>/001.png" in text
    assert f"page:    {folder}/gallery.html (5 images" in capsys.readouterr().out
    with Image.open(folder / "gallery.png") as sheet:
        assert sheet.width > 600
    # It needs nothing beside it.
    source = (folder / "gallery.html").read_text(encoding="utf-8")
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert not re.search(r"https?:|url\(|@import", source)
    assert all(picture["src"].startswith("data:image/") for picture in page.pictures)


def test_a_page_of_two_runs_begins_with_where_they_disagree(tested, explained, monkeypatch):
    folders = tested("keras", OTHER), tested()
    assert run_gallery(monkeypatch, *folders, "--count", "2") == 0
    page = Page(folders[0].parent / "gallery.html")
    text = " ".join(page.text)
    assert "The runs disagree, most surely first The first 2 of 3." in text
    assert [picture["alt"] for picture in page.pictures[:3]] == ["test/cat/001.png", "Grad-CAM, lightning",
                                                                  "Grad-CAM, keras"]
    assert ("true cat lightning <b> with 70.0 %, wrong (true class 20.0 %) keras dog with 80.0 %, wrong "
            "(true class 10.0 %) test/cat/001.png") in text
    assert {3, 4} <= set(explained["lightning"]) & set(explained["keras"])
    assert [line for line in page.text if re.match("(lightning|keras): the ", line)] == [
        f"{name}: {kind}" for name in ("lightning", "keras")
        for kind in ("the most confident mistakes", "the least sure hits")]


def test_a_run_without_mistakes(tested, undrawn, monkeypatch):
    folder = tested(shares=np.eye(3).repeat(2, axis=0) + 1e-9)
    assert run_gallery(monkeypatch, folder) == 0
    assert "lightning: the most confident mistakes There are none." in " ".join(Page(folder / "gallery.html").text)


def test_without_maps_the_page_says_why(tested, undrawn, monkeypatch, capsys):
    def explain(answers, rows):
        raise UserError("its layers are not convolutional")
    monkeypatch.setattr(report, "explain_answers", explain)
    folder = tested()
    assert run_gallery(monkeypatch, folder) == 0
    page = Page(folder / "gallery.html")
    line = "No maps of lightning (resnet18): its layers are not convolutional"
    assert line in page.text
    assert line in capsys.readouterr().out.splitlines()
    assert len(page.pictures) == 6
    assert "Beside each image" not in " ".join(page.text)


def test_out_names_the_page(tested, undrawn, tmp_path, monkeypatch):
    folder = tested()
    assert run_gallery(monkeypatch, folder, folder, "--out", tmp_path / "here.html") == 0  # one run, named twice
    assert {path.name for path in tmp_path.glob("here.*")} == {"here.html", "here.png"}
    assert not list(folder.glob("gallery.*"))


def test_arrays_in_memory_are_shown_by_number(tmp_path):
    folder = make_run(tmp_path, config={"dataset.limit_test": 50})
    data = answer_own_images(folder, lambda labels: np.eye(10)[labels])
    answers = read_answers(folder)
    assert answers.name_image(7) == "test image 7"
    np.testing.assert_array_equal(answers.read_image(7), data.test.pixels[7])


# Mistakes

def expect_line(monkeypatch, capsys, said, *words):
    """One line on standard error, and no file."""
    assert run_gallery(monkeypatch, *words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert re.search(said, lines[0]), lines[0]


@pytest.mark.parametrize(("words", "said"), [
    (["--count", "0"], "error: --count 0: expected 1 to 200"),
    (["--count", "few"], "argument --count: invalid int value: 'few'; see --help"),
    (["--out", "page.png"], r"error: --out page.png: expected a name that ends in \.html"),
    (["a", "b"], "3 runs are named; name one or two"),
])
def test_wrong_words(words, said, tested, monkeypatch, capsys):
    expect_line(monkeypatch, capsys, said, tested(), *words)


def test_a_run_that_cannot_be_shown(tested, tmp_path, monkeypatch, capsys):
    expect_line(monkeypatch, capsys, "is not a run folder", tmp_path)
    folder = tested(shares=np.full_like(SURE, np.nan))
    expect_line(monkeypatch, capsys, "logits of test images are not finite", folder)
    (folder / "predictions.npz").unlink()
    expect_line(monkeypatch, capsys, r"has no predictions\.npz; write it with python lightning_project/evaluate\.py ",
                folder)
    (folder / "result.json").unlink()
    expect_line(monkeypatch, capsys, r"is an unfinished run: it has no result\.json; go on with it by resume", folder)
    assert not list(folder.glob("gallery.*"))


def test_data_that_are_gone_or_others(tested, images, monkeypatch, capsys):
    folder = tested()
    (images / "test" / "dog" / "000.png").rename(images / "test" / "dog" / "new.png")
    expect_line(monkeypatch, capsys, "was tested on other images than image_folder has now; restore them", folder)
    shutil.rmtree(images)
    expect_line(monkeypatch, capsys, r"config\.yaml: dataset\.root=.* is no folder here", folder)


def test_no_disagreements_of_runs_that_saw_other_images(tested, undrawn, tmp_path, monkeypatch, capsys):
    others = make_pictures(tmp_path / "others", {f"{split}/{name}": 4 for split in ("train", "test")
                                                 for name in ("ant", "bee")})
    folder, out = tested(), tmp_path / "page.html"
    for other, reason in ((tested("keras", np.full((8, 2), .5), others, seed=1), "they have different classes"),
                          (tested("keras", SURE[:5]), "one of them was tested on a part of the images alone")):
        assert run_gallery(monkeypatch, folder, other, "--out", out) == 0
        line = f"Where the two runs disagree is not shown, since {reason}."
        assert line in capsys.readouterr().out.splitlines()
        assert line in (page := Page(out)).text
        assert "keras: the least sure hits" in page.text


def test_a_place_that_cannot_be_written_to(tested, tmp_path, monkeypatch, capsys):
    assert run_gallery(monkeypatch, tested(), "--out", tmp_path / "none" / "page.html") == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {tmp_path}/none/page.html cannot be written (No such file or directory); what was there before is "
        "whole; name another place with --out")


# Who explains

def test_a_run_is_explained_by_its_own_sibling_or_by_the_one_that_is_here(tested, monkeypatch):
    def pretend(*here):
        monkeypatch.setattr("shared.scores.gallery.maps.list_siblings", lambda: here)
        monkeypatch.setattr("shared.scores.gallery.maps.find_interpreter", lambda name: "python")
    run = read_run(tested("keras"))
    for here, chosen in ((("lightning", "keras"), "keras"), (("lightning",), "lightning"), ((), "keras")):
        pretend(*here)
        assert choose_sibling(run) == chosen
    run.config["model.name"] = "keras:ResNet50"  # which only Keras can build
    pretend("lightning")
    assert choose_sibling(run) == "keras"


def test_what_the_siblings_process_says_last_is_why_there_are_no_maps(tested, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho a warning >&2\necho error: the weights are gone >&2\nexit 2\n")
    python.chmod(0o755)
    monkeypatch.setattr("shared.scores.gallery.maps.require_interpreter", lambda sibling: str(python))
    with pytest.raises(UserError, match=r"^the weights are gone$"):
        explain_answers(read_answers(tested()), np.array([0]))
