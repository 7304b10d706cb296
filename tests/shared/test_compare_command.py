"""The comparison's command line: which runs it finds, and its mistakes, each told in one line."""

import errno
import subprocess
import sys
from functools import partial

import pytest

from shared.compare.__main__ import main
from shared.machine.files import REPOSITORY
from tests.shared.run_folders import make_run, pretend_siblings


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Say which siblings' folders are here; at first both."""
    say = partial(pretend_siblings, monkeypatch)
    say("lightning", "keras")
    return say


def test_newest_finished_run_of_each_sibling_in_the_newest_group(tmp_path, capsys):
    make_run(tmp_path, "lightning", group="older", stamp="20250101-120000")
    make_run(tmp_path, "lightning", stamp="20260101-120000")
    newest = make_run(tmp_path, "lightning", stamp="20260102-120000")
    make_run(tmp_path, "lightning", stamp="20260103-120000", finished=False)
    keras = make_run(tmp_path, "keras")
    assert main(["--output-dir", str(tmp_path)]) == 0
    page = (tmp_path / "quickstart" / "comparison.md").read_text()
    assert page.endswith(f"Runs:\n\n- `quickstart/{newest.name}`\n- `quickstart/{keras.name}`\n")
    out = capsys.readouterr().out
    assert "same experiment" in out
    assert "comparison.png" in out
    assert main(["--output-dir", str(tmp_path), "--group", "older", "--out", str(tmp_path / "out")]) == 0
    assert "no run of keras" in capsys.readouterr().out
    assert (tmp_path / "out" / "comparison.md").is_file()


def test_where_a_sibling_is_alone_nothing_is_said_of_the_other(tmp_path, capsys, here):
    here("keras")
    for seed in (0, 1):
        keras = make_run(tmp_path, "keras", seed=seed)
    make_run(tmp_path, "lightning", stamp="20260102-120000")  # of before its folder was deleted
    assert main(["--output-dir", str(tmp_path)]) == 0
    assert (tmp_path / "quickstart" / "comparison.md").read_text().endswith(f"Runs:\n\n- `quickstart/{keras.name}`\n")
    assert main(["--output-dir", str(tmp_path), "--seeds"]) == 0
    out = capsys.readouterr().out
    assert "one run, nothing to compare it with" in out
    assert "same experiment up to the seed (2 seeds)" in out
    assert "lightning" not in out
    assert "both siblings" not in out


@pytest.mark.parametrize(("arguments", "said"), [
    (["--output-dir", "{root}/none"], "is not a folder; train first with: make train"),
    (["--output-dir", "{root}/quickstart"], "no finished run in"),
    (["--output-dir", "{root}", "--group", "quickstar"], "did you mean 'quickstart'?"),
    (["--group", "x", "{run}"], "drop one of the two"),
    (["{root}/missing"], "is not a run folder: there is no such folder"),
    (["{root}"], "is not a run folder: it has no config.yaml"),
    (["{run}", "--out", "{run}/run.json"], "choose another folder with --out"),
    (["--sedes"], "unrecognized arguments: --sedes; see --help"),
    (["--group"], "expected one argument; see --help")])
def test_mistakes_are_one_line(pair, tmp_path, capsys, arguments, said):
    assert main([word.format(root=tmp_path, run=pair[0]) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error


@pytest.mark.parametrize(("name", "content", "said"), [
    ("result.json", b'{"test/accuracy": 0.9', "result.json: not valid JSON"),
    ("result.json", b'{"test/accuracy": "high"}', "test/accuracy is 'high'; expected a number"),
    ("result.json", b"[]", "holds list"), ("result.json", b"\xff\xfe", "result.json: not valid JSON"),
    ("run.json", b'{"framework": "jax"}', "framework is 'jax'; expected lightning or keras"),
    ("run.json", b"", "run.json: not valid JSON"), ("metrics.jsonl", b"{\n{}\n", "metrics.jsonl: line 1"),
    ("config.yaml", b"a: [", "config.yaml: not valid YAML"),
    ("predictions.npz", b"PK", "predictions.npz: cannot be read")])
def test_damaged_files_are_one_line(pair, capsys, name, content, said):
    (pair[1] / name).write_bytes(content)
    assert main([str(folder) for folder in pair]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error


def test_damaged_run_nobody_named_is_passed_over(pair, tmp_path, capsys):
    broken = make_run(tmp_path, "keras", stamp="20260105-120000")
    (broken / "run.json").write_text("{")
    assert main(["--output-dir", str(tmp_path)]) == 0
    assert f"passed over: {broken / 'run.json'}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["comparison.png", "comparison.md", "comparison.html"])
def test_a_comparison_is_printed_before_what_cannot_be_written_is_told(pair, capsys, name):
    (pair[0].parent / name).mkdir()  # a folder that is for reading only does not stop root
    assert main(["--html", *map(str, pair)]) == 2
    printed = capsys.readouterr()
    assert "same experiment" in printed.out
    assert "test accuracy" in printed.out
    assert "picture:" not in printed.out
    assert printed.err.startswith(f"error: {pair[0].parent / name} cannot be written (")
    assert printed.err.endswith("; choose another folder with --out\n")
    assert len(printed.err.splitlines()) == 1


def test_a_folder_that_cannot_be_made_is_one_line(pair, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([*map(str, pair), "--out", str(tmp_path / "file" / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'file' / 'out'} cannot be made: Not a directory; ")


def test_a_full_disk_leaves_the_pages_of_before(pair, capsys, monkeypatch):
    folders = list(map(str, pair))
    assert main(["--html", *folders]) == 0
    written = {path: path.read_bytes() for path in pair[0].parent.glob("comparison.*")}
    assert len(written) == 3

    def fill(path, *_, **__):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("pathlib.Path.write_text", fill)
    assert main(["--html", *folders]) == 2
    assert "comparison.md cannot be written (No space left on device); what was there before is whole; " in \
        capsys.readouterr().err
    assert set(pair[0].parent.glob("comparison.*")) == set(written)
    assert all(path.read_bytes() == content for path, content in written.items() if path.suffix != ".png")


def test_help_imports_nothing_heavy():
    """As a user starts it. matplotlib, scipy and OmegaConf take a second or more together."""
    code = ("import sys; from shared.compare.__main__ import main\n"
            "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
            "print(sorted({'matplotlib', 'scipy', 'omegaconf', 'torch', 'tensorflow'} & set(sys.modules)))")
    found = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
    assert "--seeds" in found.stdout
