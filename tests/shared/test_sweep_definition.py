"""The file of a sweep: everything in it is checked by the schema before the first trial."""

import re
from pathlib import Path

import pytest

from shared.config import get_value, parse_config
from shared.errors import UserError
from shared.machine.files import REPOSITORY
from shared.machine.interpreters import list_siblings
from shared.training.sweep.definition import describe_sweep, read_sweep
from shared.training.sweep.space import Dimension
from shared.training.sweep.wandb_file import write_wandb_files
from tests.shared.sweeps import FILE

FILES = sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "configs" / "sweep").glob("*.yaml"))
LR = "optimizer.lr: {low: 0.001, high: 1.0, log: true}"


def read(folder: Path, text: str, *words: str, **options):
    (folder / "mine.yaml").write_text(text)
    return read_sweep(str(folder / "mine.yaml"), [f"output_dir={folder / 'runs'}", *words], **options)


def test_what_a_file_says(tmp_path):
    sweep = read(tmp_path, FILE, "train.epochs=2")
    assert (sweep.name, sweep.trials, sweep.siblings, sweep.metric, sweep.direction) == (
        "mine", 6, list_siblings(), "val/loss", "min")
    assert sweep.config.train.epochs == 2  # the command line comes last
    assert sweep.config.train.label_smoothing == 0.1  # of the base
    assert sweep.space == (Dimension("optimizer.lr", low=0.001, high=1.0, log=True),
                           Dimension("train.batch_size", ("16", "32")))
    assert sweep.folder == tmp_path / "runs" / "mine"


def test_values_may_be_of_any_type_that_a_key_has(tmp_path):
    text = """
space:
  train.metrics: [[], [top5], [top5, macro_f1]]
  augment.flip: [true, false]
  schedule:
    name: [cosine, constant]
  train:
    batch_size: {low: 16, high: 64, step: 16}
    grad_clip: {low: 0, high: 2, step: 0.5}
"""
    sweep = read(tmp_path, text)
    assert [one.describe() for one in sweep.space] == [
        "[], [top5], [top5, macro_f1]", "true, false", "cosine, constant", "16 to 64, step 16", "0 to 2, step 0.5"]
    trial = sweep.build_trial(3, {"train.metrics": "[top5, macro_f1]", "augment.flip": "true",
                                  "train.batch_size": "48"})
    assert (trial.train.metrics, trial.augment.flip, trial.train.batch_size) == (["top5", "macro_f1"], True, 48)
    assert (trial.experiment, trial.output_dir) == ("mine_003", str(tmp_path / "runs" / "mine"))


@pytest.mark.parametrize(("old", "new", "message"), [
    (LR, "optimizer.lrr: [1, 2]", "unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?"),
    (LR, "optimizer: [1, 2]", "'optimizer' is a section"),
    (LR, "optimizer.lr: 0.1", "optimizer.lr needs a list of values, or low and high"),
    (LR, "optimizer.lr: []", "optimizer.lr needs a list"),
    (LR, "optimizer.lr: [0.1, high]", "space.optimizer.lr='high' is not of type float"),
    (LR, "optimizer.lr: [0.1, -1]", "space: optimizer.lr=-1.0 is out of range"),
    (LR, "optimizer.lr: {low: 0.1, high: 1000}", "space: optimizer.lr=1000.0 is out of range"),
    (LR, "optimizer.lr: {low: 0.1}", "optimizer.lr needs both low and high"),
    (LR, "optimizer.lr: {low: 1, high: 0.1}", "low has to be below high"),
    (LR, "optimizer.momentum: {low: 0, high: 0.5, log: true}", "log needs low above 0"),
    (LR, "optimizer.lr: {low: 0.1, high: 1, log: yes}", "log is true or false"),
    (LR, "optimizer.lr: {low: 0.1, high: 1, log: true, step: 0.1}", "log and step exclude each other"),
    (LR, "optimizer.lr: {low: 0.1, high: 1, steps: 3}", "unknown key 'optimizer.lr.steps'"),
    (LR, "optimizer.name: {low: adam, high: sgd}", "optimizer.name is of type str and has no low and high"),
    (LR, "optimizer.name: [adam, sgdd]", "optimizer.name='sgdd' is not one of"),
    (LR, "optimizer.name: [adam, adam]", "optimizer.name names a value twice"),
    (LR, "optimizer.lr: ['${optimizer.eps}', 1]", "optimizer.lr refers to another key"),
    (LR, "train.accumulate: [1.5, 2]", "space.train.accumulate='1.5' is not of type int"),
    (LR, "experiment: [a, b]", "'experiment' cannot be searched"),
    (LR, "train.focal_gamma: [1, 3]", "train.focal_gamma changes what train.monitor=val/loss measures"),
    (f"space:\n  {LR}\n  train.batch_size: [16, 32]", "space: {}", "the space is empty"),
    ("trials: 6", "trials: 0", "trials is no whole number of at least 1"),
    ("trials: 6", "trails: 6", "unknown 'trails'; a sweep's file has "),
    ("trials: 6", "seed: x", "seed is no whole number"),
    ("trials: 6", "optimizer.lr: 1", "'optimizer.lr' is a key of the experiment; write it under 'fixed:'"),
    ("trials: 6", "siblings: [jax]", "siblings: 'jax' is not here"),
    ("trials: 6", "name: a/b", "name='a/b' becomes a folder's name"),
    ("prune: false", "prune: 0", "prune is true or false"),
    ("train.epochs: 3", "train.epoch: 3", "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
    ("train.epochs: 3", "train.monitor: train/loss", "choose a val/ metric"),
    ("quickstart.yaml", "quikstart.yaml", "did you mean 'configs/quickstart.yaml'?"),
])
def test_a_mistake_is_told_in_one_line(tmp_path, old, new, message):
    assert old in FILE
    with pytest.raises(UserError, match=re.escape(message)) as error:
        read(tmp_path, FILE.replace(old, new))
    assert "\n" not in str(error.value)


def test_values_that_contradict_each_other_are_told(tmp_path, capsys):
    contradiction = "space:\n  optimizer.momentum: [0, 0.9]\n  optimizer.nesterov: [true, false]\n"
    read(tmp_path, contradiction)
    assert capsys.readouterr().err == (
        "1 of 4 combinations of the values are no config, and such trials will count as failed; the first: "
        "optimizer.nesterov=true needs optimizer.momentum above 0; set optimizer.nesterov=false\n")
    with pytest.raises(UserError, match=r"mine\.yaml: optimizer\.nesterov=true needs optimizer\.momentum"):
        read(tmp_path, "fixed: {optimizer.momentum: 0}\nspace:\n  optimizer.lr: [0.1, 0.2]\n")


@pytest.mark.skipif("keras" not in list_siblings(), reason="the keras sibling is not here")
def test_what_a_sibling_does_not_honour_is_told(tmp_path):
    with pytest.raises(UserError, match="is for PyTorch Lightning alone"):
        read(tmp_path, "siblings: keras\nspace:\n  model.name: ['timm:a', 'timm:b']\n")


def test_only_what_makes_trials_comparable_is_kept_with_them(tmp_path):
    one = describe_sweep(read(tmp_path, FILE))
    assert describe_sweep(read(tmp_path, FILE, "hardware.threads=1", "tracking.mode=disabled", trials=9)) == one
    assert describe_sweep(read(tmp_path, FILE, "train.epochs=4")) != one
    assert describe_sweep(read(tmp_path, FILE.replace("high: 1.0", "high: 0.5"))) != one


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_repository_is_a_sweep_and_says_what_to_expect(name):
    sweep = read_sweep(name)
    header = [line for line in (REPOSITORY / name).read_text().splitlines() if line.startswith("#")]
    assert f"#   python -m shared.sweep {name}" in header
    assert {"hardware", "minutes", "found"} <= {line[2:].split(" ", 1)[0] for line in header}
    assert sweep.name == Path(name).stem


def test_there_are_files():
    assert FILES


def test_wandb_would_start_the_same_trainings(tmp_path):
    import yaml
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    sweep = read(tmp_path, FILE + "  train.metrics: [[], [top5]]\n  train.grad_clip: {low: 0, high: 2, step: 0.5}\n"
                 "  train.accumulate: {low: 1, high: 4, log: true}\n  schedule.step_epochs: {low: 1, high: 5}\n")
    paths = write_wandb_files(sweep)
    assert [path.name for path in paths] == [f"wandb_{sibling}.yaml" for sibling in sweep.siblings]
    written = yaml.safe_load(paths[0].read_text())
    assert written["metric"] == {"name": "val/loss", "goal": "minimize"}
    assert written["parameters"]["optimizer.lr"] == {"distribution": "log_uniform_values", "min": 0.001, "max": 1.0}
    assert {key: one.get("distribution") for key, one in written["parameters"].items()} == {
        "optimizer.lr": "log_uniform_values", "train.batch_size": None, "train.metrics": None,
        "train.grad_clip": "q_uniform", "train.accumulate": "q_log_uniform_values",
        "schedule.step_epochs": "int_uniform"}
    assert "early_terminate" not in written
    # As W&B's agent fills in the command; the values are those that its server would choose.
    values = {"optimizer.lr": 0.1, "train.batch_size": "32", "train.metrics": "[top5]"}
    arguments = create_sweep_command_args({"args": {key: {"value": value} for key, value in values.items()}})
    command = []
    for word in create_sweep_command(written["command"]):
        command += arguments["args_no_hyphens"] if word == "${args_no_hyphens}" else [word]
    words = command[command.index("${program}") + 1:]
    config = parse_config(words, "train.py", "")
    assert [get_value(config, key) for key in values] == [0.1, 32, ["top5"]]
    assert (config.train.epochs, config.experiment) == (3, "mine_wandb")
