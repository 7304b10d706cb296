"""make check-gpu, tried with each sibling's own programs on the CPU."""

import json

import pytest

from shared.bench.gpu import __main__ as gpu


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_it_runs_on_a_cpu(sibling, tmp_path):
    names = ["fp32", "fp16", "resume", "resnet18"]
    assert gpu.main(["--cpu", f"--out={tmp_path}", "--parts", *(f"{sibling.name}/{name}" for name in names)])
    [file] = tmp_path.glob("*.json")
    found = json.loads(file.read_text())
    parts = {name.partition("/")[2]: part for name, part in found["parts"].items()}
    assert {name: part["outcome"] for name, part in parts.items()} == {
        "fp32": "passes", "fp16": "needs a GPU", "resume": "passes", "resnet18": "measured"}
    assert parts["fp32"]["figures"]["last losses"] < parts["fp32"]["figures"]["first losses"]
    assert parts["resume"]["figures"]["weights"] == 0
    assert parts["resnet18"]["figures"]["train"] > 0
    assert found["siblings"][sibling.name]["versions"]["numpy"]
    for part in parts.values():
        assert part["text"] in file.with_suffix(".md").read_text()
