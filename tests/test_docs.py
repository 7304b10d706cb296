"""Every command and every block of the README and of docs/ does what the page says, and every link leads somewhere.

Commands run in a copy of the repository with an environment of its own, as in a fresh clone. Those that take minutes,
or need an account or another machine, are checked in the cheapest way that still fails where they are mistyped; `KINDS`
lists them all, with the reason. A command of a kind that is not in the list fails.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.machine.interpreters import PACKAGES, installed
from tests.documented import GUIDE, PAGES, REPOSITORY, Block, apply_guide, collect_blocks, copy_repository
from tests.terminal import run_in_terminal

README = REPOSITORY / "README.md"
# Who works with one framework may delete the other's folder; the pages still tell of both.
FOLDERS = {sibling: REPOSITORY / f"{sibling}_project" for sibling in PACKAGES}
DELETED = [folder for folder in FOLDERS.values() if not folder.is_dir()]
ABSENT = [sibling for sibling, folder in FOLDERS.items() if folder in DELETED or not installed(sibling)]
BLOCKS = [block for page in PAGES for block in collect_blocks(page)]
# A training of a few seconds, in place of the quick start's half a minute.
SMALL = ("dataset.limit_train=200 dataset.limit_test=60 train.epochs=1 schedule.warmup_epochs=0 train.batch_size=32 "
         "hardware.threads=1")


# The pages

def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150


def test_readme_links_every_page():
    missing = {str(page.relative_to(REPOSITORY)) for page in PAGES[1:]} - set(links(README))
    assert missing == set()


def links(page: Path) -> list[str]:
    """Where a page's links and images lead, but for other sites."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"\w+:", target)]


def anchors(page: Path) -> set[str]:
    """What GitHub calls a page's headings in links."""
    titles = re.findall(r"^#+ +(.*?) *$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(place), f"{page.name}: {target} is no heading of {place.name}"


def test_every_preset_is_in_the_tables():
    page = (REPOSITORY / "docs" / "running.md").read_text()
    told = set(re.findall(r"^\| `(configs/[\w/]+\.yaml)`", page, re.MULTILINE))
    there = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "configs").rglob("*.yaml")
             if "launchers" not in path.parts}
    assert told == there


def test_the_map_names_what_there_is():
    [block] = [block for block in BLOCKS if block.sections[-1] == "The map"]
    folders, named = [()], set()
    for line in block.text.splitlines():
        if not line.startswith(" "):  # "lightning_project/   keras_project/   what they are"
            folders = [tuple(re.findall(r"(?:^|(?<= ))([\w.]+)/(?= |$)", line))]
            named |= {REPOSITORY / folder for folder in folders[0]}
        else:  # "  train.py evaluate.py   what they are", of each folder above
            names = re.match(r" +([\w./ ]*?[\w./])(?= {2,}|$)", line)[1].split()
            for folder in folders[0]:
                named |= {REPOSITORY / folder / name for name in names}
    missing = {path for path in named if not path.exists() and not {path, *path.parents} & set(DELETED)}
    assert missing == set()
    told = {path for path in named if path.parent == REPOSITORY / "shared"}
    there = {path for path in (REPOSITORY / "shared").iterdir() if path.name not in ("__init__.py", "__pycache__")}
    assert {path.name for path in there - told} == set()


# The blocks

def is_output(block: Block) -> bool:
    """Whether a text block shows what the command in the block before it prints."""
    return block.language == "text" and output_of(block) is not None


def output_of(block: Block) -> Block | None:
    before = [other for other in BLOCKS if other.page == block.page and other.line < block.line]
    return before[-1] if before and before[-1].language == "bash" else None


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_of_a_kind_that_is_tested(block):
    covered = (block.language in ("bash", "yaml", "dockerfile") or is_output(block)
               or block.sections[-1] == "The map"
               or (block.page == GUIDE and (block.language == "diff" or block.new_file)))
    assert covered, f"{block} is {block.language or 'of no language'}, which no test reads"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_yaml_is_a_config(block, tmp_path, monkeypatch):
    from shared.config import build_config, read_yaml

    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in re.findall(r"^ +root: ~/(\S+)", block.text, re.MULTILINE):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "config.yaml").write_text(block.text)
    build_config([("config.yaml", read_yaml(tmp_path / "config.yaml"))])


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "dockerfile"], ids=str)
def test_dockerfile_installs_what_there_is(block):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    version = re.search(r"^FROM python:3\.(\d+)$", block.text, re.MULTILINE)[1]
    lowest, highest = re.fullmatch(r">=3\.(\d+)\.\d+,<3\.(\d+)", project["requires-python"]).groups()
    assert int(lowest) < int(version) < int(highest)
    check_installation(None, re.search(r"^RUN (.*)$", block.text, re.MULTILINE)[1])


# The commands

class Clone:
    """A copy of the repository with an environment that has the packages of this one, as `make setup` leaves it."""

    def __init__(self, place: Path):
        self.folder, self.place = copy_repository(place / "clone"), place
        environment = self.folder / ".venv"
        venv.create(environment, with_pip=False)
        packages = next(environment.glob("lib/python*/site-packages"))
        beside = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (packages / "clone.pth").write_text("\n".join([str(self.folder), *beside]))
        (environment / "bin" / "wandb").symlink_to(Path(sys.executable).with_name("wandb"))
        extras = re.search(r"^EXTRAS \?= (\S+)", (self.folder / "Makefile").read_text(), re.MULTILINE)[1]
        (environment / f".installed-{extras}").touch()
        self.write_images()
        self.write_stand_ins()
        kept = {name: value for name, value in os.environ.items()
                if name not in ("PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "ARGS") and not name.startswith("WANDB_")}
        self.environment = kept | {
            "PATH": os.pathsep.join([str(environment / "bin"), str(place / "bin"), os.environ["PATH"]]),
            "HOME": str(place), "PYTHON": str(place / "bin" / "training"), "TPU_NAME": "local"}

    def write_images(self) -> None:
        """FOLDER: two classes of noise, twelve files each."""
        draws = np.random.default_rng(0)
        for name in ("daisy", "tulip"):
            (self.folder / "images" / name).mkdir(parents=True)
            for number in range(12):
                pixels = draws.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(self.folder / "images" / name / f"{number}.png")

    def write_stand_ins(self) -> None:
        """SLURM's commands, and an interpreter for launchers that lets train.py check its words and does not train."""
        (self.place / "bin").mkdir()
        for name, script in {
            "training": 'while [ "${1##*/}" != train.py ]; do shift; done; exec .venv/bin/python "$@" --print-config',
            "sbatch": 'SLURM_SUBMIT_DIR=$PWD SLURM_JOB_ID=1 SLURM_NNODES=2 SLURM_NTASKS_PER_NODE=4 SLURM_NTASKS=8 '
                      'SLURM_JOB_NODELIST=host SLURM_PROCID=0 exec bash "$@"',
            "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
            "scontrol": 'printf "host-a\\nhost-b\\n"',
        }.items():
            (self.place / "bin" / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
            (self.place / "bin" / name).chmod(0o755)

    @cached_property
    def runs(self) -> dict[str, Path]:
        """A run of each sibling, made by `make train`, the README's first command."""
        done = self.run("make train", ARGS=SMALL)
        assert DELETED or "same experiment" in done.stdout, done.stdout
        return {sibling: next(self.folder.glob(f"runs/quickstart/{sibling}_*")) for sibling in PACKAGES
                if FOLDERS[sibling] not in DELETED}

    def run(self, command: str, status: int = 0, **variables: str) -> subprocess.CompletedProcess:
        done = subprocess.run(["bash", "-c", command], cwd=self.folder, env=self.environment | variables,
                              capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == status, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done

    def fill(self, command: str) -> str:
        """`command` with what stands for something of the reader's own filled in."""
        if re.search(r"\bRUN\b", command):
            runs = [str(run.relative_to(self.folder)) for run in self.runs.values()]
            command = re.sub(r"\bRUN\b", lambda found: runs.pop(0), command)  # the first is Lightning's
        return re.sub(r"\bFOLDER\b", "images", command).replace("CHECKPOINT", "images")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return Clone(tmp_path_factory.mktemp("docs"))


def run_as_typed(clone: Clone, command: str) -> str:
    done = clone.run(clone.fill(command))
    return done.stdout + done.stderr


def run_with_runs(clone: Clone, command: str) -> str:
    return clone.runs and run_as_typed(clone, command)


def train_small(clone: Clone, command: str) -> str:
    assert clone.runs
    return "trained"


def print_config(clone: Clone, command: str) -> str:
    """Through make, its ARGS are what the option is added to."""
    command = clone.fill(command)
    if command.startswith("make "):
        assert clone.runs
        target, _, words = command.removeprefix("make ").partition(" ")
        given = " ".join(shlex.split(words)).removeprefix("ARGS=")
        command = f"make {target} ARGS={shlex.quote(given + ' --print-config')}"
    printed = clone.run(command if command.startswith("make ") else f"{command} --print-config").stdout
    assert "experiment:" in printed
    return printed


def print_help(clone: Clone, command: str) -> str:
    return clone.run(f"{command} --help").stdout


def make_dry(clone: Clone, command: str) -> str:
    known = re.findall(r"^(\w+) \?=", (clone.folder / "Makefile").read_text(), re.MULTILINE)
    given = [word.partition("=")[0] for word in shlex.split(command) if "=" in word]
    assert set(given) <= set(known), f"{command}: no such variable"
    return clone.run(f"{command} --dry-run").stdout


def check_activation(clone: Clone, command: str) -> str:
    found = clone.run(f"{command} && command -v python").stdout
    assert found.strip() == str(clone.folder / ".venv" / "bin" / "python")
    return found


def check_installation(clone: Clone | None, command: str) -> str:
    extra = re.fullmatch(r"pip install -e '\.\[(\w+)\]' -c constraints\.txt", command)[1]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]
    assert (REPOSITORY / "constraints.txt").is_file()
    return extra


def check_file(clone: Clone, command: str) -> str:
    assert (clone.folder / shlex.split(command)[-1]).is_file()
    return "found"


def look_at_dashboard(clone: Clone, command: str) -> str:
    assert clone.runs
    return run_in_terminal(shlex.split(command), clone.folder, clone.environment, until="_seed0", leave="q")


@dataclass(frozen=True)
class Kind:
    """Commands that are checked alike. `check` runs one and returns what was printed; `reason` says why it is not simply
    run as it is typed."""

    pattern: str
    check: Callable[[Clone, str], str]
    reason: str = ""


TRAIN = r"python (lightning|keras)_project/train\.py"
KINDS = [
    Kind(r"make train", train_small, "the whole quick start takes a minute: here with few images"),
    Kind(r"make help", run_as_typed),
    Kind(r"make (train|parity) ARGS=.+", print_config, "takes minutes: config files and keys are checked"),
    Kind(r"make (setup|setup-gpu|test|test-faults|parity|bench|bench-models)( \w+=\S+)*", make_dry,
         "takes minutes or downloads gigabytes: make says what it would run"),
    Kind(rf"{TRAIN} .*--(help|print-config)", run_as_typed),
    Kind(rf"{TRAIN}( .*)?", print_config, "trains for minutes: config files and keys are checked"),
    Kind(r"python (lightning|keras)_project/evaluate\.py RUN", run_as_typed),
    Kind(r"python -m shared\.models", run_as_typed),
    Kind(r"python -m shared\.compare( .*)?", run_with_runs),
    Kind(r"\. \.venv/bin/activate", check_activation),
    Kind(r"wandb leet \./wandb", look_at_dashboard),
    Kind(r"wandb sync wandb/offline-run-\*", lambda clone, command: run_with_runs(clone, f"{command} --dry-run"),
         "needs an account: W&B says what it would send"),
    Kind(r"pip install .*", check_installation, "downloads gigabytes: the extra and the file exist"),
    Kind(r"(\w+=\S+ )*(sbatch )?configs/launchers/\w+\.(sh|sbatch)( .*)?", run_as_typed,
         "several machines, SLURM, a TPU: stand-ins for them, and train.py checks the words it is given"),
    Kind(r"kubectl apply -f \S+", check_file, "needs a cluster: tests/launchers reads the file"),
]


def commands() -> list:
    """The commands of all bash blocks, without their comments."""
    found = []
    for block in BLOCKS:
        if block.language == "bash":
            lines = re.sub(r"\\\n *", "", block.text).splitlines()
            typed = [re.sub(r"(^|\s+)# .*", "", line) for line in lines]
            found += [pytest.param(block, command, id=f"{block}-{command}") for command in typed if command]
    return found


def shown_output(block: Block) -> str:
    """The text block that follows a bash block, or an empty string."""
    return next((other.text for other in BLOCKS if is_output(other) and output_of(other) == block), "")


@pytest.mark.parametrize(("block", "command"), commands())
def test_command_does_what_the_page_says(block, command, clone):
    kind = next((kind for kind in KINDS if re.fullmatch(kind.pattern, command)), None)
    assert kind, f"{block}: no kind of KINDS knows how to check: {command}"
    trains = re.search(r"\bRUN\b|make train|shared\.compare|wandb", command)
    for sibling in ABSENT:
        if f"{sibling}_project" in command or (trains and FOLDERS[sibling] not in DELETED):
            pytest.skip(f"the {sibling} sibling is not there")
    if command.count("RUN") > len(FOLDERS) - len(DELETED):
        pytest.skip("a sibling was deleted")
    if expected := shown_output(block):
        is_error = expected.startswith("error: ")
        done = clone.run(command, status=2 if is_error else 0)
        assert_shown(expected, done.stderr if is_error else done.stdout)
    else:
        assert kind.check(clone, command)


def assert_shown(expected: str, printed: str) -> None:
    """Each line that a page shows is among those printed; `...` stands for anything."""
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    for line in expected.splitlines():
        pattern = ".*".join(re.escape(part) for part in " ".join(line.split()).split("..."))
        assert any(re.fullmatch(pattern, other) for other in lines), f"{line!r} was not printed, but:\n{printed}"


def test_every_kind_of_command_is_on_a_page():
    typed = [param.values[1] for param in commands()]
    chosen = {next((kind.pattern for kind in KINDS if re.fullmatch(kind.pattern, command)), None) for command in typed}
    assert {kind.pattern for kind in KINDS} - chosen == set()


# The messages of the page of tips

def messages_in_source() -> list[str]:
    """Every text of the code, with `…` for what is filled in; neighbouring texts that are added up are one."""
    found = []
    for folder in ("shared", "lightning_project", "keras_project"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            tree = ast.parse(path.read_text())
            found += [text_of(node) for node in set(ast.walk(tree)) - docstrings_of(tree)
                      if isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp)]
    return [text for text in found if len(text) > 10]


def text_of(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return "…"


def docstrings_of(tree: ast.Module) -> set[ast.AST]:
    """Texts that stand alone, which no reader of an error sees."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def quoted_messages() -> list[str]:
    page = (REPOSITORY / "docs" / "tips.md").read_text()
    return [message for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
            for message in re.findall(r"`([^`]+)`", row)]


MESSAGES = messages_in_source()


@pytest.mark.parametrize("message", quoted_messages())
def test_a_message_of_the_tips_is_one_of_the_code(message):
    parts = [re.escape(part) for part in message.split("…") if part]
    found = any(re.search(".*".join(parts), text) for text in MESSAGES)
    if DELETED and not found:
        pytest.skip("it may be a message of the sibling that was deleted")
    assert found, f"nothing in the code says: {message}"


# The guide, and what reads it

def guide_sections() -> list[str]:
    """The sections of docs/changing.md that show code."""
    shown = [block.sections[1] for block in BLOCKS if block.page == GUIDE and (block.language == "diff" or block.new_file)]
    return list(dict.fromkeys(shown))


@pytest.mark.parametrize("section", guide_sections())
@pytest.mark.skipif(bool(DELETED), reason="the guide changes both siblings, and one was deleted")
def test_a_section_of_the_guide_applies_and_a_test_trains_with_it(section, tmp_path):
    touched = apply_guide(section, copy_repository(tmp_path / "copy"))
    assert touched
    for name in touched:
        if name.endswith(".py"):
            compile((tmp_path / "copy" / name).read_text(), name, "exec")
    uses = [ast.unparse(node) for path in (REPOSITORY / "tests").rglob("test_*.py") if path != Path(__file__)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "apply_guide"]
    assert any(repr(section) in use for use in uses), f"no test applies the section '{section}' and trains with it"


PAGE = """# Title

## Add a thing

1. `shared/things/new.py`, a new file:
   ```python
   def add() -> int:
       return 1
   ```
   `shared/things/newer.py` is a new file:
   ```python
   TWO = 2
   ```

```diff
--- a/shared/old.py
+++ b/shared/old.py
@@ -2,4 +2,4 @@
 one
-two
+three

 four
```

```bash
python -m shared.things
```

## Another
"""
OLD = "zero\n" * 3 + "one\ntwo\n\nfour\n"  # the patch says that line 2 has the first one


@pytest.fixture
def guide(tmp_path):
    (tmp_path / "tree" / "shared").mkdir(parents=True)
    (tmp_path / "tree" / "shared" / "old.py").write_text(OLD)
    page = tmp_path / "guide.md"
    page.write_text(PAGE)
    return page


def test_blocks_know_where_they_stand(guide):
    first, second, patch, command = blocks = collect_blocks(guide)
    assert first.text == "def add() -> int:\n    return 1\n"
    assert [block.new_file for block in blocks] == ["shared/things/new.py", "shared/things/newer.py", "", ""]
    assert command.sections == ("Title", "Add a thing")
    assert [block.language for block in blocks] == ["python", "python", "diff", "bash"]
    assert guide.read_text().splitlines()[patch.line - 1] == "```diff"


def test_a_block_that_is_never_closed_is_told(guide):
    guide.write_text("# Title\n\n```bash\nls\n")
    with pytest.raises(ValueError, match=r"guide.md:3: the block is never closed"):
        collect_blocks(guide)


def test_guide_writes_and_patches(guide, tmp_path):
    tree = tmp_path / "tree"
    assert apply_guide("Add a thing", tree, guide) == {"shared/things/new.py": 2, "shared/things/newer.py": 1,
                                                       "shared/old.py": 2}
    assert (tree / "shared" / "old.py").read_text() == OLD.replace("two", "three")
    assert (tree / "shared" / "things" / "newer.py").read_text() == "TWO = 2\n"
    assert apply_guide("Another", tree, guide) == {}


def test_guide_applies_in_a_folder_that_lies_within_a_repository(guide, tmp_path):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    apply_guide("Add a thing", tmp_path / "tree", guide)
    assert (tmp_path / "tree" / "shared" / "old.py").read_text() != OLD


@pytest.mark.parametrize(("old", "new", "error", "words"), [
    ("## Add a thing", "## Add another", LookupError, "no section 'Add a thing'"),
    ("-two", "-2", ValueError, "the patch does not apply"),
    ("--- a/shared/old.py\n+++ b/shared/old.py\n", "", ValueError, "the patch does not apply"),
    ("shared/things/new.py", "shared/old.py", ValueError, "not a new file, it exists already"),
    ("newer.py` is a new file", "newer.py` is new", ValueError, "names no new file"),
])
def test_guide_that_does_not_fit_is_told(guide, tmp_path, old, new, error, words):
    guide.write_text(guide.read_text().replace(old, new))
    with pytest.raises(error, match=words):
        apply_guide("Add a thing", tmp_path / "tree", guide)
