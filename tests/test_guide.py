"""docs/changing.md: what its sections show fits the code, some test trains with it, and `apply_guide` does it right."""

import ast
import subprocess
from pathlib import Path

import pytest

from tests.documented import GUIDE, REPOSITORY, apply_guide, collect_blocks, copy_repository


def guide_sections() -> list[str]:
    """The sections of docs/changing.md that show code."""
    shown = [block.sections[1] for block in collect_blocks(GUIDE) if block.language == "diff" or block.new_file]
    return list(dict.fromkeys(shown))


@pytest.mark.parametrize("section", guide_sections())
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
    first, _, patch, command = blocks = collect_blocks(guide)
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
