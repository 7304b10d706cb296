"""Choices that stand in the siblings' own tables, such as OPTIMIZERS in optim.py.

They are read from the source, so that an entry there is all that a new choice takes, and so that no framework is
imported for it.
"""

import ast

from shared.machine.files import REPOSITORY

SIBLINGS = ("lightning", "keras")


def read_table(file: str, table: str) -> dict[str, list[str]]:
    """The string keys of the dictionary `table` in a sibling's `file`, in order, each with the siblings that have it.

    A sibling whose folder was deleted has none.
    """
    found: dict[str, list[str]] = {}
    for sibling in SIBLINGS:
        path = REPOSITORY / f"{sibling}_project" / file
        for name in list_keys_of(path.read_text(encoding="utf-8"), table) if path.is_file() else []:
            found.setdefault(name, []).append(sibling)
    return found


def list_keys_of(source: str, table: str) -> list[str]:
    """The string keys of the dictionary that `source` assigns to the name `table`."""
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(getattr(target, "id", "") == table for target in targets) and isinstance(node.value, ast.Dict):
            return [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
    return []


def find_single_owners(table: dict[str, list[str]]) -> dict[str, str]:
    """The choices that one sibling alone has; none where there is only one sibling."""
    if len({sibling for siblings in table.values() for sibling in siblings}) < 2:
        return {}
    return {name: siblings[0] for name, siblings in table.items() if len(siblings) == 1}
