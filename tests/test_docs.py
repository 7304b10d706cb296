"""Every command and every block of the README and of docs/ does what the page says, and every link leads somewhere."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from shared.config import build_config, list_keys, parse_config, read_yaml
from shared.training.sweep.definition import read_sweep
from tests.commands import ABSENT, DELETED, FOLDERS, KINDS, Clone, check_installation
from tests.documented import GUIDE, PAGES, REPOSITORY, Block, collect_blocks

README = REPOSITORY / "README.md"
OWN = {"lightning": "lightning_project|torchrun|slurm_lightning",
       "keras": "keras_project|multi_worker|slurm_keras|tpu_vm|measure_stock|--siblings keras"}
BLOCKS = [block for page in PAGES for block in collect_blocks(page)]


# The pages

def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150


def test_readme_links_every_page():
    missing = {str(page.relative_to(REPOSITORY)) for page in PAGES[1:]} - set(links(README))
    assert missing == set()


def links(page: Path) -> list[str]:
    """Where a page's links and images lead, but for other sites."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"\w+:", target)]


def anchors(page: Path) -> set[str]:
    """What GitHub calls a page's headings in links."""
    titles = re.findall(r"^#+ +(.*?) *$", page.read_text(encoding="utf-8"), re.MULTILINE)
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


def test_every_sabotage_is_on_the_page_of_proof():
    told = set(re.findall(r"^\| `(\w+\.py)`", (REPOSITORY / "docs" / "proof.md").read_text(), re.MULTILINE))
    assert told == {path.name for path in (REPOSITORY / "tests" / "parity" / "sabotage").glob("*.py")}


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


FILES = (".py", ".safetensors", ".yaml", ".keras", ".onnx", ".pt2", ".tflite")


OF_FILES = ("dataset.decode", "dataset.cache")


def named_keys() -> list[str]:
    """Keys and key=value words within the text of the pages, such as `train.epochs` and `train.epochs=5 seed=3`."""
    sections = {key.partition(".")[0] for key in list_keys() if "." in key}
    words = {word for page in PAGES for word in re.findall(r"(?<!`)`(\w+\.[a-z0-9_]+(?:=[^`]+)?)`", page.read_text())
             if word.partition(".")[0] in sections and not word.endswith(FILES)}
    return sorted(words)


@pytest.mark.parametrize("word", named_keys())
def test_a_key_that_a_page_names_is_in_the_schema(word):
    key, _, value = word.partition("=")
    assert key in list_keys()
    if value and not re.search(r"[A-Z…]|\.\.", value):  # nothing for the reader to fill in
        model = "vit_tiny" if "gradient_checkpointing" in word else "resnet18"
        files = ["dataset.name=image_folder", f"dataset.root={REPOSITORY}"] if key in OF_FILES else []
        parse_config([f"model.name={model}", *files, *word.split()], "", "")


# The blocks

def find_command_of(block: Block) -> Block | None:
    """The bash block that a text block follows without a word in between, so that it is what the command prints."""
    before = [other for other in BLOCKS if other.page == block.page and other.line < block.line]
    follows = before and block.language == "text" and not block.lead and before[-1].sections == block.sections
    return before[-1] if follows and before[-1].language == "bash" else None


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_of_a_kind_that_is_tested(block):
    covered = (block.language in ("bash", "yaml", "dockerfile", "python") or find_command_of(block)
               or block.sections[-1] == "The map"
               or (block.page == GUIDE and (block.language == "diff" or block.new_file)))
    assert covered, f"{block} is {block.language or 'of no language'}, which no test reads"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_yaml_is_a_config(block, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in re.findall(r"^ +root: ~/(\S+)", block.text, re.MULTILINE):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "config.yaml").write_text(block.text)
    if re.search(r"^space:", block.text, re.MULTILINE):
        read_sweep(str(tmp_path / "config.yaml"))
        return
    build_config([("config.yaml", read_yaml(tmp_path / "config.yaml"))])


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "dockerfile"], ids=str)
def test_dockerfile_installs_what_there_is(block):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    version = re.search(r"^FROM python:3\.(\d+)$", block.text, re.MULTILINE)[1]
    lowest, highest = re.fullmatch(r">=3\.(\d+)\.\d+,<3\.(\d+)", project["requires-python"]).groups()
    assert int(lowest) < int(version) < int(highest)
    check_installation(None, re.search(r"^RUN (.*)$", block.text, re.MULTILINE)[1])


# The commands

@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return Clone(tmp_path_factory.mktemp("docs"))


def commands() -> list:
    """The commands of all bash blocks, without their comments; one that is on several pages is there once."""
    found = {}
    for block in BLOCKS:
        lines = re.sub(r"\\\n *", "", block.text).splitlines() if block.language == "bash" else []
        for line in lines:
            command = re.sub(r"(^|\s+)# .*", "", line)
            if command and (command not in found or shown_output(block)):
                found[command] = pytest.param(block, command, id=f"{block}-{command}")
    return list(found.values())


def shown_output(block: Block) -> str:
    """The text block that follows a bash block, or an empty string."""
    return next((other.text for other in BLOCKS if find_command_of(other) == block), "")


def find_needed(command: str) -> set[str]:
    """The siblings that a command runs or whose runs it reads. Where a folder was deleted, a single run has to do."""
    needed = {sibling for sibling, names in OWN.items() if re.search(names, command)}
    reads_runs = re.search(r"\bRUN\b|make train|make parity|shared\.compare|wandb", command)
    both = command.count("RUN") > 1 or "make parity" in command
    return needed | {sibling for sibling in OWN if reads_runs and (both or FOLDERS[sibling] not in DELETED)}


@pytest.mark.slow
@pytest.mark.parametrize(("block", "command"), commands())
def test_command_does_what_the_page_says(block, command, clone):
    kind = next((kind for kind in KINDS if re.fullmatch(kind.pattern, command)), None)
    assert kind, f"{block}: no kind of KINDS knows how to check: {command}"
    for sibling in find_needed(command) & set(ABSENT):
        pytest.skip(f"the {sibling} sibling is not there")
    if block.page == GUIDE and len(block.sections) > 1:  # its commands are for whoever has made the change
        clone.follow_guide(block.sections[1])
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


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python" and block.page != GUIDE],
                         ids=str)
def test_a_program_runs(block, clone):
    for sibling in find_needed(block.text) & set(ABSENT):
        pytest.skip(f"the {sibling} sibling is not there")
    assert clone.run(f"python - <<'END'\n{clone.fill(block.text)}END").stdout


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
