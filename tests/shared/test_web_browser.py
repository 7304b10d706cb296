"""The page of a comparison as a browser shows it: two runs and twenty, narrow and wide, light and dark."""

import json

import numpy as np
import pytest

from shared.compare.report import compare_runs
from tests.shared.browser import browser, opened  # noqa: F401  a fixture
from tests.shared.run_folders import answer_own_images, make_run

SECTIONS = ["curves", "scores", "classes", "confusion", "calibration", "disagreements", "speed", "commands"]
# How many pixels of a chart are nearly of a colour, given as red, green and blue.
COUNT = """(canvas, colour) => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  let found = 0;
  for (let at = 0; at < data.length; at += 4)
    if (data[at + 3] > 200 && colour.every((part, place) => Math.abs(data[at + place] - part) < 12)) found++;
  return found;
}"""
BLUE, ORANGE = [0, 0x72, 0xB2], [0xD5, 0x5E, 0]


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    """No picture beside the page, since drawing it takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.compare.curves.draw_comparison", lambda *arguments: arguments[-1].touch())
        yield


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The page of a pair that was tested on the digits, of which each has its own two wrong."""
    root = tmp_path_factory.mktemp("pair")
    folders = [make_run(root, framework) for framework in ("lightning", "keras")]
    for number, folder in enumerate(folders):
        answer_own_images(folder, lambda labels, first=number: 3 * np.eye(10)[
            np.where(np.isin(np.arange(len(labels)), (first, 5)), (labels + 1) % 10, labels)])
    return compare_runs(folders, html=True).html


@pytest.fixture(scope="module")
def twenty(tmp_path_factory):
    """The page of ten seeds of each sibling, with enough steps that their curves are thinned."""
    root = tmp_path_factory.mktemp("twenty")
    folders = []
    for seed in range(10):
        for framework in ("lightning", "keras"):
            draws = np.random.default_rng([seed, len(framework)])
            rows = [{"samples": 64 * (step + 1), "epoch": (step + 1) / 20, "time/train_s": 0.1 * (step + 1),
                     "train/loss_step": float(2 / (step + 1) + draws.uniform(0.1, 0.2))} for step in range(1000)]
            rows += [{"samples": 1280 * (epoch + 1), "epoch": epoch + 1, "time/train_s": 2.0 * (epoch + 1),
                      "train/loss": float(2 / (epoch + 1)), "val/loss": float(draws.uniform(1, 2) / (epoch + 1)),
                      "val/accuracy": float(1 - draws.uniform(0.5, 1) / (epoch + 1)), "lr": 0.05,
                      "perf/images_per_second": 640.0} for epoch in range(50)]
            folders.append(make_run(root, framework, seed, history=rows, wrong=(seed, seed + 1)))
    return compare_runs(folders, seeds=True, html=True).html


@pytest.mark.parametrize(("which", "width", "scheme"), [
    ("pair", 400, "dark"), ("pair", 1400, "light"), ("twenty", 400, "light"), ("twenty", 1400, "dark")])
def test_every_section_is_filled_and_fits(browser, request, which, width, scheme):  # noqa: F811
    with opened(browser, request.getfixturevalue(which), width, scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert [section.get_attribute("id") for section in page.query_selector_all("section")] == SECTIONS
        for name in SECTIONS:
            section = page.query_selector(f"#{name}")
            assert section.bounding_box()["height"] > 60, name
            assert section.query_selector("table, canvas, .cards article, pre") or name == "disagreements", name
        charts = page.query_selector_all("canvas")
        assert len(charts) >= 6
        for canvas in charts:
            assert 0 < canvas.bounding_box()["width"] <= width
            assert canvas.evaluate(COUNT, BLUE) + canvas.evaluate(COUNT, ORANGE) > 0
        paper, ink = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
        shades = [sum(map(int, colour.removeprefix("rgb(").rstrip(")").split(", "))) for colour in (paper, ink)]
        assert (shades[0] < shades[1]) == (scheme == "dark")


def test_images_on_which_the_siblings_differ_stand_with_both_answers(browser, pair):  # noqa: F811
    with opened(browser, pair) as page:
        cards = page.query_selector_all("#disagreements article")
        assert len(cards) == 2  # of the three wrong ones both have one wrong in the same way
        assert all(card.query_selector("img").evaluate("image => image.naturalWidth") > 0 for card in cards)
        said = [[line.inner_text() for line in card.query_selector_all("dd")] for card in cards]
        assert sorted((words[1].split(", ")[1].split()[0], words[2].split(", ")[1].split()[0]) for words in said) == [
            ("right", "wrong"), ("wrong", "right")]


def span(page):
    """What part of the x axis each chart of the curves shows."""
    return {(chart.get_attribute("data-from"), chart.get_attribute("data-to"))
            for chart in page.query_selector_all('[data-of="curves"] .chart, [data-of="speed"] .chart')}


def test_curves_are_zoomed_together(browser, pair):  # noqa: F811
    with opened(browser, pair) as page:
        assert span(page) == {("0", "5120")}
        box = page.query_selector('[data-of="curves"] .u-over').bounding_box()
        page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60, steps=4)
        page.mouse.up()
        [(low, high)] = span(page)
        assert (float(low), float(high)) == (pytest.approx(1280, abs=20), pytest.approx(2560, abs=20))
        page.click("#log")  # which draws all anew
        assert span(page) == {(low, high)}
        page.mouse.dblclick(box["x"] + box["width"] / 2, box["y"] + 50)
        assert span(page) == {("0", "5120")}
        page.click("#closer")
        assert span(page) == {("1280", "3840")}
        page.click("#right")
        assert span(page) == {("2560", "5120")}
        page.check("[name=axis][value='1']")
        assert span(page) == {("0", "4")}
        assert page.inner_text("figcaption >> nth=0") == "loss over epochs"


def test_curves_are_switched_and_told(browser, pair):  # noqa: F811
    with opened(browser, pair) as page:
        def counts():
            return [page.query_selector('[data-of="curves"] canvas').evaluate(COUNT, colour)
                    for colour in (BLUE, ORANGE)]
        both = counts()
        page.uncheck("#train")
        assert [0 < now < before for now, before in zip(counts(), both, strict=True)] == [True, True]
        page.uncheck(".legend label:has-text('keras') input")
        assert counts()[1] == 0 < counts()[0]
        box = page.query_selector('[data-of="curves"] .u-over').bounding_box()
        page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 50)
        assert page.inner_text(".told >> nth=0").strip() == "lightning, validation: 0.16 at 5120"


def test_the_page_follows_the_system_from_light_to_dark(browser, pair):  # noqa: F811
    with opened(browser, pair) as page:
        def ink():
            return page.query_selector("canvas").evaluate(COUNT, [0xEC, 0xEC, 0xEC])
        before = ink()
        page.emulate_media(color_scheme="dark")
        page.wait_for_timeout(100)
        assert ink() > before


def test_twenty_runs_are_two_bands_or_twenty_lines(browser, twenty):  # noqa: F811
    assert twenty.stat().st_size < 2e6
    with opened(browser, twenty) as page:
        assert [label.inner_text().strip() for label in page.query_selector_all(".legend label")] == [
            "lightning, 10 seeds", "keras, 10 seeds"]
        assert "thinned" in page.inner_text("#curves")
        page.uncheck("#bands")
        assert len(page.query_selector_all(".legend label")) == 20


def test_a_script_in_a_name_is_text(browser, tmp_path):  # noqa: F811
    folder = make_run(tmp_path, group="</script><script>fail()</script>")
    record = json.loads((folder / "run.json").read_text())
    record["classes"][3] = "<img src=x onerror=fail()>"
    (folder / "run.json").write_text(json.dumps(record))
    with opened(browser, compare_runs([folder], html=True).html) as page:
        assert "<script>fail()" in page.inner_text("h1")
        assert "<img src=x" in page.inner_text("#classes")
