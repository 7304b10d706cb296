"""The ladder passes as the siblings are, and names the right rung when one of them is broken on purpose.

The frameworks only ever run in the probes' processes: together in one process they can abort.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from shared.config import Config
from shared.data.loading import load_data
from shared.machine.files import REPOSITORY
from shared.parity import __main__ as command
from shared.parity.findings import Answer, Finding, measure_difference
from shared.parity.ladder import judge_by_yardsticks, round_counts
from shared.parity.pictures import write_pictures
from shared.parity.plan import LOSSES, RUNGS, change_config, plan_fit, strip_config
from shared.weights.initial import draw_initial_weights
from tests.conftest import needs_both, needs_both_folders, needs_jax
from tests.parity.sabotaged import assert_rung_is_named, climb_with_broken, name_tasks, tasks_of

# One of each sibling, and one that a loss alone shows; `make test-faults` has them all.
BROKEN = ("initialiser", "unweighted_classes", "macro_accuracy")


def write_cifar(root):
    """CIFAR-10's binary format: a byte of label, then red, green and blue planes of 32x32."""
    root.mkdir()
    random = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        rows = random.integers(0, 256, (100, 3073), np.uint8)
        rows[:, 0] = np.arange(100) % 10
        (root / name).write_bytes(rows.tobytes() * 100)  # the reader asks for 10,000
    return root


def climb_as_they_are(place, tasks):
    """The findings of both siblings for `tasks`, the ladders' tasks by the name of their data."""
    # Rung 5 has every loss, with its gradients; one is trained with, which has all that the others are made of.
    named = [task for data, group in tasks.items() for task in name_tasks(group, data)
             if not task.name.startswith(("fit-weighted", "fit-binary"))]
    command.run_probes({"Lightning": named, "Keras": named}, place)
    return {data: command.judge_answers([task for task in named if task.name.endswith(data)],
                                        place / "Lightning", place / "Keras") for data in tasks}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder of all answers."""
    place = tmp_path_factory.mktemp("parity")
    yield place
    shutil.rmtree(place)  # 3 GB, which pytest would keep for three sessions


@pytest.fixture(scope="module")
def recorded(place):
    """The ladder's findings for the digits and for a backbone that is unfrozen. And which tensors moved while the
    backbone was frozen, and afterwards."""
    found = climb_as_they_are(place, {
        "digits": tasks_of([], place / "digits", set(RUNGS),
                           models=("resnet18", "resnet50", "efficientnet_b0", "vit_tiny"),  # a family each
                           losses=tuple(LOSSES)),
        "unfrozen": [plan_unfreezing()]})
    return found | {"moved": [list_moved(Answer(label, place / label, "fit-adamw-unfrozen"))
                              for label in ("Lightning", "Keras")]}


@pytest.fixture(scope="module")
def recorded_elsewhere(place):
    """The ladder's findings for two more data sets: pixels in memory that are cropped and mirrored, and files."""
    folder = place / "elsewhere"
    folder.mkdir()
    return climb_as_they_are(folder, {
        "cifar": tasks_of(["dataset.name=cifar10", f"dataset.root={write_cifar(place / 'binary')}", "augment.flip=true",
                           "train.batch_size=16", "dataset.limit_train=400", "dataset.limit_test=80"],
                          place / "cifar", set(RUNGS), steps=4),
        "folder": tasks_of(["dataset.name=image_folder", f"dataset.root={write_pictures(place / 'pictures')}",
                            "dataset.image_size=24", "dataset.val_fraction=0.25", "train.batch_size=4",
                            "augment.crop=resized", "model.stem=large"], place / "folder", set(RUNGS), steps=4)})


@pytest.fixture(scope="module")
def broken(place, recorded):
    """What the ladder finds of each sabotaged sibling beside the other's answers to the digits."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(BROKEN, pool.map(climb_with_broken, BROKEN, [place] * len(BROKEN)), strict=True))


def plan_unfreezing():
    """Two epochs of five steps, of which the first trains the head alone."""
    base = strip_config(command.parse_command_line([]))
    base.hardware.threads = 1
    task = plan_fit(base, load_data(base), "adamw", 10)
    return replace(task, config=change_config(task.config, model__freeze="backbone", train__unfreeze_epoch=1,
                                              optimizer__backbone_lr_factor=0.1))


def list_moved(answer):
    """After steps 1 and 10 of the digits: the tensors that are no longer as they were drawn, and all tensors."""
    shapes = {name.removeprefix("step 1 "): tensor.shape for name, tensor in answer.arrays.items()
              if name.startswith("step 1 ")}
    first = draw_initial_weights(shapes, Config().seed)
    return [{name for name in shapes if not np.array_equal(answer.arrays[f"step {step} {name}"], first[name])}
            for step in (1, 10)], set(shapes)


@needs_both
@pytest.mark.timeout(600)
def test_both_siblings_unfreeze_alike(recorded):
    assert [finding for finding in recorded["unfrozen"] if not finding.passes] == []
    for moved, all_tensors in recorded["moved"]:
        assert moved == [{"fc.weight", "fc.bias"}, all_tensors]


def assert_all_rungs_pass(findings):
    assert {finding.rung for finding in findings} == set(RUNGS)
    assert [finding for finding in findings if not finding.passes] == []


@needs_both
@pytest.mark.timeout(600)
def test_ladder_passes(recorded):
    assert_all_rungs_pass(recorded["digits"])


@pytest.mark.slow
@needs_both
@pytest.mark.timeout(600)
@pytest.mark.parametrize("data", ["cifar", "folder"])
def test_ladder_passes_with_other_data(recorded_elsewhere, data):
    assert_all_rungs_pass(recorded_elsewhere[data])


@pytest.mark.slow
@needs_both
@needs_jax
@pytest.mark.timeout(900)
def test_ladder_passes_with_keras_on_jax(place, recorded, monkeypatch):
    """The tasks of a ResNet and a ViT, which Lightning has answered for the other tests."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    tasks = name_tasks(tasks_of([], place / "jax-digits", set(RUNGS), models=("resnet18", "vit_tiny"),
                                losses=("focal",)), "digits")
    command.start_probe("Keras", tasks, place / "jax").wait()
    assert "JAX" in (place / "jax" / "log.txt").read_text()
    assert_all_rungs_pass(command.judge_answers(tasks, place / "Lightning", place / "jax"))


@pytest.mark.slow
@needs_both
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BROKEN)
def test_ladder_names_the_rung_of_a_broken_sibling(broken, name):
    assert_rung_is_named(name, broken[name])


def finding(rung, figure, tolerance=1e-9, where=""):
    return Finding(rung, "something", figure, tolerance, where)


@needs_both_folders
@pytest.mark.parametrize(("figure", "status"), [(1e-10, 0), (1e-8, 1), (float("nan"), 1), (float("inf"), 1)])
def test_command_reports_and_exits(monkeypatch, tmp_path, capsys, figure, status):
    findings = [finding(1, 0.0, 0.0), finding(7, figure, where="step 3 conv1.weight[0, 0]: 1 here, 2 there")]
    monkeypatch.setattr(command, "climb_ladder", lambda config: findings)
    assert command.main([f"output_dir={tmp_path}"]) is (status == 0)
    printed = capsys.readouterr().out
    report = (tmp_path / "quickstart" / "parity.md").read_text()
    for text in (printed, report):
        assert ("First failure: rung 7 steps" in text) == bool(status)
    assert "step 3 conv1.weight[0, 0]" in report
    assert str(tmp_path / "quickstart" / "parity.md") in printed


def run_command(*words, **environment):
    return subprocess.run([sys.executable, "-m", "shared.parity", *words], capture_output=True, text=True,
                          cwd=REPOSITORY, env=os.environ | environment, timeout=120)


@needs_both_folders
@pytest.mark.parametrize(("words", "environment", "says"), [
    (["model.nmae=resnet18"], {}, "did you mean 'model.name'?"),
    (["hardware.accelerator=gpu"], {}, "parity compares on the CPU"),
    ([], {"TEMPLATE_LIGHTNING_PYTHON": "/nowhere/python"}, "TEMPLATE_LIGHTNING_PYTHON=/nowhere/python cannot be run"),
])
def test_user_errors_are_one_line(tmp_path, words, environment, says):
    done = run_command(*words, f"output_dir={tmp_path}", **environment)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@needs_both_folders
def test_interpreter_without_the_framework_is_named(tmp_path):
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'torch'\" >&2\nexit 1\n")
    bare.chmod(0o755)
    done = run_command(f"output_dir={tmp_path}", TEMPLATE_LIGHTNING_PYTHON=str(bare), TEMPLATE_KERAS_PYTHON=str(bare))
    assert done.returncode == 2
    assert "No module named 'torch'" in done.stderr
    assert "TEMPLATE_LIGHTNING_PYTHON" in done.stderr
    assert not list(tmp_path.glob("quickstart/parity-*"))


def test_gradient_checkpointing_is_asked_of_the_models_that_have_it(tmp_path):
    words = ["model.name=vit_tiny", "model.gradient_checkpointing=true", f"output_dir={tmp_path}"]
    asked = {task.config.model.name: task.config.model.gradient_checkpointing
             for task in tasks_of(words, tmp_path, {4}, models=("resnet18", "efficientnet_b0", "vit_small"))}
    assert asked == {"resnet18": False, "efficientnet_b0": False, "vit_small": True}


def test_difference_names_place_and_values():
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [3.0, 4.5]])
    assert measure_difference("w", a, b, "A", "B") == (0.5, "w[1, 1]: 4 in A, 4.5 in B")
    assert measure_difference("w", a, b, "A", "B", relative=True)[0] == 0.125
    assert measure_difference("w", a, b[:1], "A", "B") == (np.inf, "w is (2, 2) in A, (1, 2) in B")
    assert measure_difference("w", a, a * np.nan, "A", "B")[0] == np.inf


def test_accuracy_that_is_no_count_stays_visible():
    np.testing.assert_array_equal(round_counts(np.array([7.0000004, 7.4])), [7.0, 7.4])


def test_yardstick_is_the_largest_of_its_kind_and_spares_exact_rungs():
    def findings(*figures):
        whats = ((3, "weights"), (4, "logits, small"), (5, "loss, small"), (5, "gradients, small"),
                 (7, "loss up to step 1, sgd"), (7, "loss up to step 1, adam"), (7, "loss up to step 50, sgd"))
        return [Finding(rung, what, figure, 0.0) for (rung, what), figure in zip(whats, figures, strict=True)]

    found = findings(0, 5e-5, 1e-6, 1e-5, 3e-3, 4e-3, 1.0)
    threads = findings(0, 0, 0, 1e-6, 4e-3, 1e-3, 0.5)
    rounding = findings(1e-7, 1e-6, 1e-7, 2e-6, 1e-3, 1e-3, 0.7)
    expected = [0.0, 1e-4, 2e-5, 2e-5, 4e-2, 4e-2, 2.8]
    assert [item.tolerance for item in judge_by_yardsticks(found, threads, rounding, "fp32")] == pytest.approx(expected)
    (far,) = judge_by_yardsticks(found[1:2], threads[1:2], [Finding(4, "logits, small", 2e-4, 0.0)], "fp32")
    assert far.tolerance == pytest.approx(8e-4)
    expected[1] = 1e-5
    assert [item.tolerance for item in judge_by_yardsticks(found, threads, rounding, "bf16")] == pytest.approx(expected)
