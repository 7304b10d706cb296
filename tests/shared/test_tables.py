"""Choices read from the siblings' source."""

import ast

import pytest

from shared.config import list_keys
from shared.config import tables as module
from shared.config.tables import find_single_owners, list_keys_of, read_table


def test_keys_of_a_table_are_read_in_order():
    source = 'X = {"other": 1}\nTABLE: dict = {"b": f(1), "a": (lambda c: {"inner": 1}), **more}\n'
    assert list_keys_of(source, "TABLE") == ["b", "a"]
    assert list_keys_of(source, "MISSING") == []


def write(folder, sibling, names):
    (folder / f"{sibling}_project").mkdir()
    (folder / f"{sibling}_project" / "optim.py").write_text(f"OPTIMIZERS = {dict.fromkeys(names, 1)!r}\n")


def test_who_has_what(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "REPOSITORY", tmp_path)
    assert read_table("optim.py", "OPTIMIZERS") == {}
    write(tmp_path, "lightning", ["sgd", "rmsprop"])
    one = read_table("optim.py", "OPTIMIZERS")
    assert one == {"sgd": ["lightning"], "rmsprop": ["lightning"]}
    assert find_single_owners(one) == {}  # nobody else is there to have it
    write(tmp_path, "keras", ["sgd", "nadam"])
    both = read_table("optim.py", "OPTIMIZERS")
    assert both == {"sgd": ["lightning", "keras"], "rmsprop": ["lightning"], "nadam": ["keras"]}
    assert find_single_owners(both) == {"rmsprop": "lightning", "nadam": "keras"}


def test_the_choices_of_the_schema_are_those_of_the_siblings():
    assert list_keys()["optimizer.name"].metadata["choices"] == tuple(read_table("optim.py", "OPTIMIZERS"))


@pytest.mark.parametrize("sibling", module.SIBLINGS)
def test_a_table_is_written_out_so_that_it_can_be_read(sibling):
    path = module.REPOSITORY / f"{sibling}_project" / "optim.py"
    if not path.is_file():
        pytest.skip(f"{sibling}_project was deleted")
    names = list_keys_of(path.read_text(), "OPTIMIZERS")
    assert {"sgd", "adam", "adamw", "lion", "muon"} <= set(names)
    tree = ast.parse(path.read_text())
    assert all(isinstance(key, ast.Constant) for node in ast.walk(tree) if isinstance(node, ast.Assign)
               and getattr(node.targets[0], "id", "") == "OPTIMIZERS" for key in node.value.keys)
