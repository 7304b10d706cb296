"""The page itself, docs/differences.md."""

import ast
import re
from pathlib import Path

from tests.differences.measuring import PAGE, rows


def test_every_row_names_a_test_and_every_test_has_a_row():
    functions = [node for file in Path(__file__).parent.glob("test_*.py") for node in ast.parse(file.read_text()).body
                 if isinstance(node, ast.FunctionDef)]
    holding = {node.name for node in functions if node.name.startswith("test_")
               and "recorded" in [argument.arg for argument in node.args.args]}
    named = [row.test for row in rows()]
    assert len(named) == len(set(named))
    assert set(named) == holding


def test_page_states_versions():
    text = PAGE.read_text()
    for package in ("torch", "torchvision", "torchmetrics", "lightning", "tensorflow", "keras"):
        assert re.search(rf"\b{package} \d+\.\d+", text), f"{PAGE.name} does not say which {package} was measured"
