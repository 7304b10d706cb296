"""Which words of a command line are paths and which are keys, and the hints for words that the shell has cut."""

import sys

import pytest

from shared.compare.__main__ import main as compare
from shared.config import Config, command
from shared.machine.files import expand_home
from shared.machine.interpreters import list_siblings
from tests.shared.command_lines import parsed, refused
from tests.shared.run_folders import make_run

LONG = "x" * 300


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["optimizer.lr=0.1.yaml", "wd=5e-4/base.yaml", "a=b/c=d/config.yml", "seed=3",
                                  "=.yaml", "x=y"])
def test_an_existing_file_is_a_file_whatever_its_name(here, name):
    (here / name).parent.mkdir(parents=True, exist_ok=True)
    (here / name).write_text("seed: 77\n")
    for word in (name, f"./{name}", str(here / name)):
        assert parsed("output_dir=out", word) == Config(seed=77, output_dir="out")


def test_a_folder_is_no_config_and_hides_no_key(here):
    (here / "seed=3").mkdir()
    assert parsed("seed=3").seed == 3
    (here / "wd=1" / "run").mkdir(parents=True)
    assert "config file 'wd=1/run' does not exist" in refused("wd=1/run")
    (here / "wd=1" / "run" / "config.yaml").touch()
    assert "it is a run folder; name wd=1/run/config.yaml" in refused("wd=1/run")


@pytest.mark.parametrize("name", ["wd=1/base.yaml", "wd=1.yml", "runs/wd=1/lightning_seed0"])
def test_a_path_that_is_not_there_is_told_as_a_file(here, name):
    assert f"config file '{name}' does not exist" in refused(name)


def test_a_run_of_such_a_folder_is_resumed_with_its_config(here):
    run = make_run(here, group="lr=0.5 wd=1", seed=6)
    assert parsed(f"resume={run}").seed == 6
    assert parsed("resume=none", f"resume={run}").seed == 6  # the last one counts, as of every key
    assert parsed(f"resume={run}", "resume=none").seed == 0


@pytest.mark.parametrize("group", ["momentum=0.9", "seed=1", "a=b=c"])
def test_evaluate_takes_a_run_in_such_a_folder(here, monkeypatch, group):
    run = make_run(here, group=group, seed=6)
    (run / "best.safetensors").touch()
    (here / "x=1.yaml").write_text("seed: 8\n")
    seen = []
    for words in ([f"{group}/{run.name}"], [str(run), "train.epochs=8"], [str(run), "x=1.yaml"]):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *words])
        command.run_command_on(lambda config, source: seen.append((config.seed, source)), "keras", "evaluate.py", "")
    assert seen == [(6, f"{group}/{run.name}"), (6, str(run)), (8, str(run))]


@pytest.mark.parametrize("words", [("momentum=0.9/run",), ("seed=1",), (LONG,), ("~nobody-here/run",)])
def test_evaluate_refuses_what_is_not_there_in_one_line(here, monkeypatch, capsys, words):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *words])
    with pytest.raises(SystemExit) as left:
        command.run_command_on(lambda config, source: None, "keras", "evaluate.py", "")
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_compare_takes_runs_and_folders_of_such_names(here, capsys):
    run = make_run(here, list_siblings()[0], group="lr=0.5")
    assert compare([f"lr=0.5/{run.name}", "--out", "out=1"]) == 0
    assert compare(["--output-dir=.", "--group", "lr=0.5"]) == 0
    assert (here / "out=1" / "comparison.md").is_file()


@pytest.mark.parametrize("words", [
    [LONG], ["a/" * 3000], ["~nobody-here/run"], ["--output-dir", "~nobody-here"], ["--output-dir", LONG],
    ["--output-dir", ".", "--group", LONG], ["{run}", "--out", LONG], ["{run}", "--out", f"{LONG}/x"]])
def test_compare_refuses_paths_that_cannot_be_in_one_line(here, capsys, words):
    run = make_run(here)
    assert compare([word.format(run=run) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert len(error) < 500


def test_an_unknown_home_stays_as_it_is(monkeypatch):
    monkeypatch.setenv("HOME", "/here")
    assert [str(expand_home(path)) for path in ("~/a", "~nobody-here/a", "a~", "/a")] == [
        "/here/a", "~nobody-here/a", "a~", "/a"]


@pytest.mark.parametrize(("words", "hint"), [
    (["seed", "=", "3"], "write seed=3, without spaces around '='"),
    (["optimizer.lr", "=0.5"], "write optimizer.lr=0.5, without spaces"),
    (["seed=1", "optimizer.lr=", "0.5"], "write optimizer.lr=0.5, without spaces"),
    (["experiment", "mine"], "write experiment=mine, without spaces"),
    (["seed=1", "train.epochs"], "write train.epochs=VALUE,"),
    (["configs/quickstart.yaml", "output_dir", "=", "out"], "write output_dir=out,"),
    (["dataset.root=my", "photos"], "a value with spaces in it needs quotes: 'dataset.root=my photos'"),
    (["train.metrics=[top5,", "macro_f1]"], "needs quotes: 'train.metrics=[top5, macro_f1]'"),
    (["train.epoch", "=", "3"], "did you mean 'train.epochs'?")])
def test_words_that_the_shell_has_cut_are_put_together_in_a_hint(here, words, hint):
    assert hint in refused(*words)


def test_an_empty_text_may_be_followed_by_a_file(here):
    (here / "base").write_text("seed: 5\n")
    for name in ("base", "configs/debug/one_batch.yaml"):
        assert parsed("experiment=", name).experiment == ""
    (here / "seed").write_text("seed: 6\n")
    assert parsed("seed").seed == 6  # a file, though a key has the same name
