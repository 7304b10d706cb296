"""How commands end: where nobody reads what they print, and how long their lines are."""

import os
import subprocess
import sys

import pytest

from shared.config import Config, validate_config
from shared.errors import LONGEST, UserError, extract_user_message, shorten
from shared.machine.files import REPOSITORY
from shared.machine.interpreters import list_siblings
from tests.shared.command_lines import refused

PRINTING = [["-m", "shared.models"], ["-m", "shared.config"], ["-m", "shared.parity", "--help"],
            ["-m", "shared.bench", "--help"], ["-m", "shared.bench.models", "-h"],
            *([f"{sibling}_project/{file}", flag] for sibling in list_siblings()
              for file, flag in (("train.py", "--help"), ("train.py", "--print-config"), ("evaluate.py", "-h")))]


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def buffering(request, monkeypatch):
    """What Python could not write stays in its buffers, or there are none."""
    monkeypatch.setenv("PYTHONUNBUFFERED", request.param)


def start(words, **streams):
    return subprocess.run([sys.executable, *words], cwd=REPOSITORY, text=True, timeout=60, **streams)


@pytest.fixture
def closed(buffering):
    """The end of a pipe that nobody reads any more, as after `| head -1`."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_a_closed_pipe_ends_a_command_without_a_word(words, closed):
    done = start(words, stdout=closed, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_closed_pipe_ends_the_comparison_without_a_word(closed, pair):
    done = start(["-m", "shared.compare", *map(str, pair)], stdout=closed, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, "")
    assert "Traceback" not in start(["-m", "shared.compare", "-h"], stdout=closed, stderr=subprocess.PIPE).stderr


@pytest.mark.parametrize("words", [["-m", "shared.compare", "nowhere"],
                                   [f"{list_siblings()[0]}_project/train.py", "seed=x"]])
def test_a_mistake_that_nobody_reads_ends_in_the_same_way(words, closed):
    assert start(words, stdout=subprocess.DEVNULL, stderr=closed).returncode == 141
    assert start(words, stdout=closed, stderr=closed).returncode == 141
    done = start(words, stdout=closed, stderr=subprocess.PIPE)
    assert done.returncode == 2  # nothing was to go there
    assert done.stderr.startswith("error: ")


@pytest.mark.usefixtures("buffering")
@pytest.mark.parametrize("prints", ["print('row', flush=True)", "say('row')"])
def test_a_reader_that_goes_away_meanwhile_ends_a_command(prints):
    code = ("import time\nfrom shared.machine.console import say\nfrom shared.machine.ending import report_errors\n"
            f"def work():\n    while True:\n        {prints}\n        time.sleep(0.01)\nreport_errors(work)")
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout.readline() == "row\n"
        process.stdout.close()
        assert process.wait(timeout=30) == 141


@pytest.mark.usefixtures("buffering")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
@pytest.mark.parametrize("words", PRINTING[:3], ids=" ".join)
def test_a_full_disk_is_one_line(words):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = start(words, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (2, "error: the output cannot be written: No space left on device\n")


@pytest.mark.parametrize("error", ["BrokenPipeError(32, 'Broken pipe')", "ConnectionResetError(104, 'reset')"])
def test_another_pipe_that_breaks_is_a_bug_like_any_other(error):
    code = f"from shared.machine.ending import report_errors\ndef work():\n    raise {error}\nreport_errors(work)"
    done = start(["-c", code], capture_output=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


# Lines

@pytest.mark.parametrize("dotted", ["resume", "init_from", "dataset.root", "output_dir", "model.pretrained"])
@pytest.mark.parametrize("path", ["x" * 300, "new/" + "x" * 300, "x/" * 3000, "~/" + "x" * 300])
def test_a_path_that_is_too_long_is_refused_in_one_line(dotted, path):
    line = refused(f"{dotted}={path}")
    assert line.startswith(f"{dotted}='{path[:20]}")
    assert "cannot be a path" in line
    assert len(line) < 2 * LONGEST


@pytest.mark.parametrize("dotted", ["resume", "init_from", "dataset.root", "output_dir", "model.pretrained"])
def test_a_home_of_nobody_is_refused_in_one_line(dotted):
    assert refused(f"{dotted}=~nobody-here/x") == f"{dotted}='~nobody-here/x' is in the home of nobody known here"


def test_a_group_that_cannot_be_a_folder_is_refused(written):
    assert "experiment='xxx" in refused(f"experiment={'x' * 300}")
    assert "has a zero byte in it" in refused(written('experiment: "a\\0b"\n'))
    with pytest.raises(UserError, match="zero byte"):
        validate_config(Config(output_dir="a\0b"))


@pytest.mark.parametrize("words", [
    ["y" * 5000], [f"{'y' * 5000}=1"], [f"--{'y' * 5000}"], [f"train.epochs={'y' * 5000}"], [f"seed={'9' * 4000}"],
    [f"optimizer.name={'a b ' * 2000}"], [f"tracking.tags={'a b ' * 2000}"], [f"dataset.std=[{'x, ' * 2000}x]"],
    [f"experiment=${{{'y' * 5000}}}"], ["experiment=" + "${seed" * 900], [f"experiment={'a/' * 3000}"],
    ["seed=1", "y z " * 2000], [f"train.monitor={'val/y' * 900}"]])
def test_no_message_is_as_long_as_what_it_quotes(words):
    assert len(refused(*words)) < 6 * LONGEST


@pytest.mark.parametrize("text", ["y" * 5000, f"{'y' * 5000}: 1", f"seed: {'y' * 5000}", f"seed: !{'y' * 900} 1",
                                  f"experiment: run #{'y' * 5000}", f"seed: *{'y' * 5000}",
                                  f"seed: [{'yes, ' * 900}y]"])
def test_a_long_word_of_a_file_is_cut(written, text):
    assert len(refused(written(text))) < 6 * LONGEST


def test_what_is_cut_shows_its_beginning_and_its_end():
    short, long = "a" * LONGEST, "begin" + "-" * 900 + "end"
    assert shorten(short) == short
    assert shorten(long).startswith("begin")
    assert shorten(long).endswith("end")
    assert len(shorten(long)) < LONGEST
    path = "/".join(["folder"] * 20)  # 139 characters that somebody has to find again
    assert extract_user_message(UserError(f"{path} is full, it's not the 'first' folder's fault")).startswith(path)


def test_a_message_holds_nothing_that_a_terminal_obeys():
    assert extract_user_message(UserError("a\x1b[31mb\x07 c\nd\r\ne\udc80 é")) == "a?[31mb? c d e? é"
