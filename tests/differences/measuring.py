"""What the tests of docs/differences.md share: the rows of the page, a framework's process, distances between arrays.

A test fails when a release changes a default either way, and where what this repository uses instead no longer agrees.
Each framework computes in its own process, from the same arrays; what they compute is in defaults_*.py.
"""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.machine.files import REPOSITORY
from tests.conftest import Sibling

PAGE = REPOSITORY / "docs" / "differences.md"
NUMBER = re.compile(r"\*\*([\d.e-]+)\*\*")


@dataclass(frozen=True)
class Row:
    """A row of the page: the difference of the defaults, or a bound of it, and of how far ours may be apart."""

    what: str
    figure: float
    is_bound: bool
    ours: float | None
    test: str


def rows() -> list[Row]:
    """The page's table, in bold its figures: | what | PyTorch | Keras | difference | here | test |"""
    found = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[-1].startswith("`test_"):
            what, _, _, difference, here, test = cells
            ours = NUMBER.search(here)
            found.append(Row(what, float(NUMBER.search(difference)[1]), difference.startswith("at most"),
                             float(ours[1]) if ours else None, test.strip("`")))
    return found


def answer(sibling: str, case: str, arguments: tuple, options: dict[str, Any]) -> Any:
    return getattr(importlib.import_module(f"tests.differences.defaults_{sibling}"), case)(*arguments, **options)


class Framework:
    """`framework.case(...)` runs that function of defaults_<sibling>.py in the sibling's process."""

    def __init__(self, sibling: Sibling):
        self.sibling = sibling

    def __getattr__(self, case: str) -> Callable[..., Any]:
        return lambda *arguments, **options: self.sibling.call(answer, case, arguments, options)


def apart(a: np.ndarray, b: np.ndarray, scale: Any = 1.0) -> float:
    return float(np.max(np.abs(np.subtract(a, b) / scale)))


def farthest(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """The largest difference between arrays of the same name, relative to the largest value of each."""
    assert a.keys() == b.keys()
    return max(apart(a[name], b[name], np.abs(a[name]).max()) for name in a)
