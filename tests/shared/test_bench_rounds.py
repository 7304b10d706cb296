"""make bench-precision and make bench-article: cases in turns, a file to go on with, their tables and the page."""

import json
import sys

import pytest

from shared.bench import article, precision, rounds
from shared.errors import UserError
from shared.machine.files import REPOSITORY
from shared.machine.pages import place_section

RESULTS = REPOSITORY / "docs" / "results.md"


@pytest.fixture
def asked(monkeypatch):
    """What a fake sibling was asked to measure: the sibling, what, and the lines of its config."""
    calls = []

    def run(sibling, config, folder, what, count):
        calls.append((sibling, what, config.read_text()))
        if len(calls) == 3:
            raise UserError("killed")
        return {"per_core": 10.0} if what == "bare_per_core" else {
            "steps": 4, "first_seconds": 9.0, "later_seconds": 8.0, "peak_memory_gib": 1.5}
    monkeypatch.setattr(rounds, "run_sibling_bench", run)
    for module in (article, precision):
        monkeypatch.setattr(module, "list_siblings", lambda: ("lightning", "keras"))
        monkeypatch.setattr(module, "find_interpreter", lambda sibling: sys.executable)
    return calls


@pytest.mark.parametrize(("module", "rows"), [(precision, 12), (article, 10)])
def test_cases_take_turns_and_a_second_call_goes_on(asked, tmp_path, capsys, module, rows):
    out = tmp_path / "found.json"
    with pytest.raises(UserError, match="killed"):
        module.main(["--rounds=1", f"--out={out}"])
    assert len(json.loads(out.read_text())["measurements"]) == 2
    capsys.readouterr()
    module.main(["--rounds=2", f"--out={out}"])
    kept = json.loads(out.read_text())["measurements"]
    half = len(kept) // 2
    assert len(asked) == len(kept) + 1  # the one that was killed
    assert [(one["sibling"], one["precision"]) for one in kept[:half]] == [
        (one["sibling"], one["precision"]) for one in kept[half:]]
    table = capsys.readouterr().out.split("---\n")[1]
    assert len([line for line in table.splitlines() if not line.startswith(" ")]) == rows


def test_each_case_has_its_config(asked, tmp_path):
    with pytest.raises(UserError):
        precision.main([f"--out={tmp_path}/found.json"])
    assert [(sibling, what) for sibling, what, _ in asked] == [
        ("lightning", "bare_per_core"), ("lightning", "bare_per_core"), ("keras", "bare_per_core")]
    assert ["precision: fp32" in config for *_, config in asked] == [True, False, True]
    asked.clear()
    with pytest.raises(UserError):
        article.main([f"--out={tmp_path}/other.json"])
    assert [(sibling, what) for sibling, what, _ in asked] == [
        ("lightning", "stock_training"), ("lightning", "training"), ("keras", "stock_training")]
    assert all("batch_size: 32" in config and "name: adam" in config for *_, config in asked)


@pytest.mark.parametrize(("content", "hint"), [
    ('{"cpu": "another", "versions": {}, "measurements": []}', "holds measurements of another with"),
    ("[]", "holds no measurements"), ("{", "holds no measurements")])
def test_a_file_that_cannot_be_gone_on_with_is_refused_and_stays(asked, tmp_path, content, hint):
    file = tmp_path / "found.json"
    file.write_text(content)
    with pytest.raises(UserError, match=hint):
        precision.main([f"--out={file}"])
    assert file.read_text() == content
    assert asked == []


def test_nothing_is_measured_where_no_sibling_is(tmp_path, monkeypatch):
    monkeypatch.setattr(article, "list_siblings", lambda: ())
    with pytest.raises(UserError, match="no sibling is installed"):
        article.main([f"--out={tmp_path}/found.json"])


def test_an_epoch_is_extrapolated_from_the_later_ones_steps():
    case = {"sibling": "keras", "what": "training", "precision": "bf16"}
    found = [case | {"batch": 32, "steps": 16, "first_seconds": 9.0, "later_seconds": 4.0, "peak_memory_gib": 1.0},
             *(case | {"batch": 128, "steps": 4, "first_seconds": first, "later_seconds": 2.0, "peak_memory_gib": 1.25}
               for first in (5.0, 6.5, 6.0))]
    # 4 s / 16 steps times 50,000 // 32 = 1562 steps, and 2 s / 4 steps times 390.
    assert article.tabulate(found).rows[0] == [
        "keras_project", "bf16", "390", "195 (195 to 195)", "4.0 (3.0 to 4.5)", "1.2"]


def test_the_share_of_bf16_is_of_the_same_round():
    case = {"model": "resnet18", "pixels": 32, "batch": 128, "steps": 4, "sibling": "keras"}
    found = [case | {"precision": name, "per_core": value}
             for name, value in (("fp32", 10.0), ("bf16", 20.0), ("fp32", 40.0), ("bf16", 20.0), ("fp32", 20.0))]
    assert precision.tabulate(found).rows == [
        ["resnet18", "32", "128", "keras", "20.0", "20.0", "1.25 (0.50 to 2.00)"]]


@pytest.mark.parametrize(("name", "module"), [("bench-article", article), ("bench-precision", precision)])
def test_the_page_agrees_with_its_measurements(name, module):
    kept = rounds.read_measurements(REPOSITORY / "docs" / f"{name}.json")
    section = rounds.format_section(kept, module.tabulate(kept["measurements"]))
    assert place_section(RESULTS, f"make {name}", section) == RESULTS.read_text(encoding="utf-8")
