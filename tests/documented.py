"""The pages' fenced blocks, and the files that a section of docs/changing.md writes into a copy of the repository."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.machine.interpreters import PACKAGES

REPOSITORY = Path(__file__).resolve().parent.parent
GUIDE = REPOSITORY / "docs" / "changing.md"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

FENCE = re.compile(r"( *)(```+)(\S*)\s*")
HEADING = re.compile(r"(#+) +(.*?) *")
NEW_FILE = re.compile(r"`([\w./-]+\.\w+)`[^`]*\bnew file\b")
PATCHED = re.compile(r"^\+\+\+ b/(\S+)", re.MULTILINE)
CHANGED = re.compile(r"^[+-](?!\+\+ |-- )", re.MULTILINE)
CACHES = shutil.ignore_patterns(".*_cache", "__pycache__", "*.egg-info")


@dataclass(frozen=True)
class Block:
    """A fenced block. `line` is the number of its opening fence, `sections` the headings that it stands under, from the
    page's title inwards, and `lead` the last line of text before it."""

    page: Path
    line: int
    language: str
    text: str
    sections: tuple[str, ...]
    lead: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def new_file(self) -> str:
        """The path of the file that this block is the whole of; empty where its lead does not say "new file"."""
        found = NEW_FILE.search(self.lead)
        return found[1] if found else ""


def collect_blocks(page: Path) -> list[Block]:
    """The fenced blocks of a Markdown page, without the indentation of the list that they may stand in."""
    blocks, sections, lead = [], [], ""
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
    for number, line in lines:
        if fence := FENCE.fullmatch(line):
            text = "".join(read_fenced(lines, page, number, *fence.group(1, 2)))
            blocks.append(Block(page, number, fence[3], text, tuple(title for _, title in sections), lead))
            lead = ""
        elif heading := HEADING.fullmatch(line):
            depth = len(heading[1])
            sections = [*(section for section in sections if section[0] < depth), (depth, heading[2])]
            lead = ""
        elif line.strip():
            lead = line.strip()
    return blocks


def read_fenced(lines: Iterator[tuple[int, str]], page: Path, opened: int, indent: str, fence: str) -> Iterator[str]:
    """The lines up to the closing fence."""
    for _, line in lines:
        if line.strip() == fence:
            return
        yield line.removeprefix(indent) + "\n"
    raise ValueError(f"{page.name}:{opened}: the block is never closed")


def copy_repository(folder: Path) -> Path:
    """A copy of the working tree in `folder`, which must not exist yet; environments, runs and caches stay behind."""
    folder.mkdir(parents=True)
    for path in REPOSITORY.iterdir():
        if path.is_file() and path.name != ".git":  # a file in a linked worktree, where git would change that one
            shutil.copy(path, folder)
        elif path.name not in ("runs", "wandb", "build") and not path.name.startswith((".git", ".venv")):
            shutil.copytree(path, folder / path.name, ignore=CACHES)
    return folder


def apply_guide(section: str, tree: Path, page: Path = GUIDE) -> dict[str, int]:
    """Do in `tree`, a copy of the repository, what a section of the guide shows.

    A block whose lead names a path in backticks and says "new file" is written to that path; a `diff` block in unified
    format, with paths that begin with a/ and b/, is applied with `git apply`, which finds its place by context and
    ignores the line numbers. Commands, their output and configs without a path are for the reader and are passed over,
    and so is what belongs to a sibling whose folder is not in `tree`.

    Returns:
        For each file, how many lines were touched: those of a new file, those added to or removed from an old one.

    Raises:
        LookupError: the page has no such section.
        ValueError: a block shows code and does not say where it belongs, a new file exists already, or a patch does
            not apply.
    """
    blocks = [block for block in collect_blocks(page) if section in block.sections[1:]]
    if not blocks and not re.search(rf"^#+ +{re.escape(section)} *$", page.read_text(encoding="utf-8"), re.MULTILINE):
        raise LookupError(f"{page.name} has no section '{section}'")
    gone = tuple(f"{name}_project/" for name in PACKAGES if not (tree / f"{name}_project").is_dir())
    touched: dict[str, int] = {}
    for block in blocks:
        if block.language == "diff":
            apply_patch(block, tree, gone)
            for patch in re.split(r"^(?=--- )", block.text, flags=re.MULTILINE):
                for file in (file for file in PATCHED.findall(patch) if not file.startswith(gone)):
                    touched[file] = touched.get(file, 0) + len(CHANGED.findall(patch))
        elif block.new_file.startswith(gone):
            continue
        elif block.new_file:
            path = tree / block.new_file
            if path.exists():
                raise ValueError(f"{block}: {block.new_file} is not a new file, it exists already")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
            touched[block.new_file] = len(block.text.splitlines())
        elif block.language not in ("bash", "text", "yaml"):
            raise ValueError(f"{block}: the line before this {block.language} block names no new file, and it is no "
                             "diff block")
    return touched


def apply_patch(block: Block, tree: Path, gone: tuple[str, ...]) -> None:
    """Apply a diff block, but for files in folders that are `gone`. Raises `ValueError` where it does not fit."""
    # Without the ceiling, git takes a repository around `tree` for the one that is meant and applies nothing at all.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tree.resolve().parent)}
    # The page shows no line numbers. Not 1, which to git means that the hunk must stand at the beginning of the file.
    text = re.sub(r"^@@$", "@@ -2 +2 @@", block.text, flags=re.MULTILINE)
    # git wants context on both sides, unless it is told that there may be none.
    done = subprocess.run(["git", "apply", "--recount", "--unidiff-zero", "--whitespace=nowarn",
                           *(f"--exclude={folder}*" for folder in gone), "-"], cwd=tree, env=environment,
                          input=text, capture_output=True, text=True, check=False)
    if done.returncode or not PATCHED.search(block.text):
        raise ValueError(f"{block}: the patch does not apply: {done.stderr.strip() or 'it names no file'}")
