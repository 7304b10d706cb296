"""The ladder names the right rung for every sibling that is broken on purpose."""

import shutil

import pytest

from shared.parity import __main__ as command
from shared.parity.plan import RUNGS
from tests.conftest import needs_both
from tests.parity.sabotaged import SABOTAGE, assert_rung_is_named, climb_with_broken, name_tasks, tasks_of

pytestmark = [needs_both, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """The folder with the answers of both siblings as they are."""
    place = tmp_path_factory.mktemp("sabotage")
    tasks = name_tasks(tasks_of([], place / "whole", set(RUNGS), losses=("focal",)), "digits")
    command.run_probes({"Lightning": tasks, "Keras": tasks}, place)
    yield place
    shutil.rmtree(place)


@pytest.mark.parametrize("name", SABOTAGE)
def test_the_ladder_names_the_rung_of_a_broken_sibling(answered, report, name):
    assert_rung_is_named(name, climb_with_broken(name, answered))
    report("a sibling broken on purpose: the ladder names the rung", 1, 1)
