"""Files are UTF-8 whatever the locale is, and a terminal that lacks a character ends nothing."""

import ast
import os
import subprocess
import sys

import pytest

from shared.machine.files import REPOSITORY
from shared.machine.interpreters import list_siblings

# Functions of Path, and `open`; those of other modules that are called so read bytes.
OTHERS = ("Image", "os", "tarfile", "gzip", "webbrowser")


def opens_text_without_encoding(call: ast.Call) -> bool:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if name == "open" and getattr(getattr(function, "value", None), "id", "") not in OTHERS:
        modes = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
        return not any("b" in mode for mode in modes)
    return name in ("read_text", "write_text")


@pytest.mark.parametrize("folder", ["shared", *(f"{sibling}_project" for sibling in list_siblings())])
def test_every_text_file_is_opened_with_an_encoding(folder):
    """ruff's rule does not know the type of everything that is called so, such as an argument of a lambda."""
    paths = list((REPOSITORY / folder).rglob("*.py"))
    assert len(paths) > 5
    found = [f"{path}:{node.lineno}" for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Call) and opens_text_without_encoding(node)]
    assert found == []


NAMES = ["späße", "犬と猫", "naïve €", "файл"]
WRITE_AND_READ = """
import io, sys
from pathlib import Path
io.text_encoding = lambda encoding, stacklevel=2: "cp1252" if encoding is None else encoding  # as on Windows
from shared.config import load_config, parse_config
from shared.machine.files import write_json
from shared.runs.folder import RunFolder
from shared.runs.records import read_json
name, root = sys.argv[1:]
config = parse_config([f"output_dir={root}/{name}", f"experiment={name}", f"tracking.tags=[{name!r}]"], "", "")
run = RunFolder.start(config, "keras")
write_json(run.folder / "run.json", {"classes": [name]})
assert read_json(run.folder / "run.json") == {"classes": [name]}
kept = load_config(run.folder / "config.yaml")
assert (kept.experiment, kept.tracking.tags, kept.output_dir) == (name, [name], f"{root}/{name}")
"""
# How Python is told to take the locale as it is, which it does of its own accord on Windows.
PLAIN = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_can_be_read(tmp_path, name):
    done = subprocess.run([sys.executable, "-c", WRITE_AND_READ, name, str(tmp_path)], cwd=REPOSITORY,
                          capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")


@pytest.mark.parametrize("word", ["dataset.root=späße", "犬.yaml", "experiment=naïve"])
@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_a_word_that_the_locale_cannot_read_is_refused(word, locale):
    done = subprocess.run([sys.executable, f"{list_siblings()[0]}_project/train.py", word], cwd=REPOSITORY,
                          env=os.environ | PLAIN | {"LC_ALL": locale}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the encoding ")
    assert done.stderr.endswith("set LC_ALL=C.UTF-8 or PYTHONUTF8=1\n")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_that_lacks_a_character_ends_nothing(name, encoding):
    program = ("from shared.machine.ending import report_errors; from shared.errors import UserError; import sys\n"
               "def work(): print(sys.argv[1]); raise UserError(sys.argv[1])\nreport_errors(work)")
    done = subprocess.run([sys.executable, "-c", program, name], cwd=REPOSITORY, capture_output=True,
                          env=os.environ | {"PYTHONIOENCODING": encoding})
    assert done.returncode == 2
    expected = name.encode(encoding, errors="backslashreplace")
    assert done.stdout.strip() == expected
    assert done.stderr.strip() == b"error: " + expected
