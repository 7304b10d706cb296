"""Values that refer to other keys are filled in once, when all files and the command line are known."""

import pytest

from shared.config import Config, get_value, load_config, to_yaml
from shared.runs.folder import RunFolder
from shared.runs.records import read_kept_values
from tests.shared.command_lines import parsed, refused

LATE = [("tracking: {project: 'p_${model.name}'}\n", "model.name=vit_tiny", "tracking.project", "p_vit_tiny"),
        ("dataset: {limit_test: '${dataset.limit_train}'}\n", "dataset.limit_train=300", "dataset.limit_test", 300),
        ("tracking: {tags: [a, 'lr_${optimizer.lr}']}\n", "optimizer.lr=1e-3", "tracking.tags", ["a", "lr_0.001"]),
        ("dataset: {std: '${dataset.mean}'}\n", "dataset.mean=[0.25]", "dataset.std", [0.25]),
        ("schedule: {step_epochs: '${train.epochs}'}\ntrain: {epochs: 3}\n", "train.epochs=40", "schedule.step_epochs",
         40),
        ("augment: {flip: '${hardware.sync_batchnorm}'}\n", "hardware.sync_batchnorm=false", "augment.flip", False),
        ("experiment: ${tracking.project}\ntracking: {project: 'x_${seed}'}\n", "seed=5", "experiment", "x_5")]


@pytest.mark.parametrize(("text", "word", "dotted", "value"), LATE)
def test_a_reference_is_to_the_value_that_counts_in_the_end(written, text, word, dotted, value):
    name, _, last = word.partition("=")
    section, _, key = name.rpartition(".")
    later = written(f"{section}: {{{key}: {last}}}\n" if section else word.replace("=", ": "), "later.yaml")
    for words in ([written(text), word], [word, written(text)], [written(text), later]):
        assert get_value(parsed(*words), dotted) == value


@pytest.mark.parametrize(("text", "word", "dotted", "value"), LATE)
def test_what_is_printed_and_kept_is_filled_in(written, capsys, tmp_path, text, word, dotted, value):
    with pytest.raises(SystemExit):
        parsed(written(text), word, "--print-config")
    printed = capsys.readouterr().out
    assert "${" not in printed
    config = parsed(written(text), word, f"output_dir={tmp_path}")
    kept = RunFolder.start(config, "keras").folder / "config.yaml"
    assert "${" not in kept.read_text()
    assert get_value(load_config(kept), dotted) == value


def test_a_reference_on_the_command_line_and_one_that_is_overridden(written):
    assert parsed("experiment=run_${seed}_${train.epochs}", "seed=4", "train.epochs=7").experiment == "run_4_7"
    assert parsed(written("experiment: ${nowhere}\n"), "experiment=mine").experiment == "mine"


def test_a_variable_of_the_environment_can_be_named(monkeypatch, written):
    monkeypatch.setenv("MY_PROJECT", "007 #1")
    assert parsed(written("tracking: {project: '${oc.env:MY_PROJECT}'}\n")).tracking.project == "007 #1"
    monkeypatch.delenv("MY_PROJECT")
    assert "'MY_PROJECT' not found" in refused("experiment=${oc.env:MY_PROJECT}")


@pytest.mark.parametrize(("text", "hint"), [
    ("seed: 1\nexperiment: ${train.epoch}\n", "line 2: experiment='${train.epoch}' cannot be filled in (Interpolation "
                                              "key 'train.epoch' not found); name another key, or write '\\${' for "
                                              "these characters themselves; did you mean 'train.epochs'?"),
    ("seed: ${experiment}\nexperiment: ${seed}\n", "line 1: seed='${experiment}' cannot be filled in (Recursive"),
    ("train:\n  epochs: ${train.epochs}\n", "line 2: train.epochs='${train.epochs}' cannot be filled in (Recursive"),
    ("tracking: {tags: [a, '${b}']}\n", "line 1: tracking.tags=['a', '${b}'] cannot be filled in"),
    ("train:\n  epochs: ${optimizer.name}\n", "line 2: train.epochs='${optimizer.name}' cannot be filled in"),
    ("experiment: ${train}\n", "line 1: experiment='${train}' cannot be filled in"),
    ("experiment: a${\n", "line 1: experiment='a${' cannot be filled in"),
    ("experiment: ${f:a}\n", "line 1: experiment='${f:a}' cannot be filled in (Unsupported interpolation type f)")])
def test_what_cannot_be_filled_in_is_told_with_file_line_and_key(written, text, hint):
    assert f"given.yaml: {hint}" in refused(written(text))
    dotted = hint.partition(": ")[2].partition("=")[0]
    if text.count("\n") == 1 and "tags" not in text:
        assert refused(text.strip().replace(": ", "=", 1)).startswith(f"command line: {dotted}=")


@pytest.mark.parametrize("text", ["${seed}", "a${b", "\\${seed}", "\\\\${seed}", "$${seed}}", "a\\b\\${", "${${seed}}",
                                  "${'", "}${a: b}"])
def test_a_text_that_looks_like_a_reference_survives(written, text):
    """Such as a path that holds one, once `\\${` was written for it."""
    config = Config(experiment=text, dataset=Config().dataset)
    config.tracking.tags = [text, "plain"]
    kept = written(to_yaml(config))
    assert load_config(kept) == config
    assert read_kept_values(kept)["tracking.tags"] == [text, "plain"]
    assert parsed("experiment=\\${seed}").experiment == "${seed}"
