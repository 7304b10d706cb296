"""Fixtures of the tests of docs/differences.md: a row to hold a measurement against, a process for each framework."""

import importlib

import numpy as np
import pytest

from shared.machine.interpreters import list_siblings
from tests.conftest import Sibling
from tests.differences.measuring import PAGE, Framework, rows

TOLERANCE = 1e-2  # relative; a figure stands on the page with three digits


@pytest.fixture
def recorded(request):
    """Holds what a test measured against its row of the page: the defaults' difference, and ours where there is one."""
    row = {row.test: row for row in rows()}[request.node.name]
    held = []

    def hold(difference: float, ours: float | None = None) -> None:
        held.append(difference)
        says = f"{row.what}: {PAGE.name} says {{}}, measured {{:.4g}} with the installed versions"
        if row.is_bound:
            assert difference <= row.figure, says.format(f"at most {row.figure:g}", difference)
        else:
            assert difference == pytest.approx(row.figure, rel=TOLERANCE), says.format(f"{row.figure:g}", difference)
        assert (ours is None) == (row.ours is None), f"{row.what}: bound of ours missing on the page or in the test"
        if ours is not None:
            assert ours <= row.ours, says.format(f"at most {row.ours:g} for ours", ours)

    yield hold
    assert held, "the test measured nothing"


@pytest.fixture(scope="module")
def frameworks():
    siblings = [Sibling(name) for name in list_siblings()]
    for sibling in siblings:  # both at once, since importing a framework takes seconds
        sibling.pool.submit(importlib.import_module, f"tests.differences.defaults_{sibling.name}")
    yield [Framework(sibling) for sibling in siblings]
    for sibling in siblings:
        sibling.pool.shutdown()


@pytest.fixture(scope="module")
def torch(frameworks):
    return frameworks[0]


@pytest.fixture(scope="module")
def keras(frameworks):
    return frameworks[1]


@pytest.fixture
def rng():
    return np.random.default_rng(0)
