"""Reading a YAML file as what is written in it, without guessing types. The schema knows those; see values.py."""

import re
from pathlib import Path
from typing import Any, ClassVar

from yaml import MappingNode, Node, SafeLoader, ScalarNode, SequenceNode, YAMLError

from shared.config.values import Scalar
from shared.errors import UserError

TAG = "tag:yaml.org,2002:"


class Loader(SafeLoader):
    """PyYAML's loader, for which every scalar is a text, but for the key << that merges another section."""

    yaml_implicit_resolvers: ClassVar = {"<": [(f"{TAG}merge", re.compile("<<"))]}


def read_yaml_file(path: Path) -> dict[str, Any]:
    """What a YAML file holds, as `{dotted key: Scalar, list of them, or empty dictionary}`.

    Raises:
        UserError: where it cannot be read or says something twice. The message names the line, where there is one.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return read_yaml_text(text, path)


def read_yaml_text(text: str, path: Path) -> dict[str, Any]:
    """The same of the `text` of a file, which messages call `path`."""
    try:
        loader = Loader(text)
        root = loader.get_single_node()
        if root is None:
            return {}
        if not isinstance(root, MappingNode):
            raise UserError(f"{path}: holds a list or a single value; expected keys such as 'train:' with values under "
                            "it")
        return collect_values(loader, root, path)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path}: not valid YAML{f' in line {mark.line + 1}' if mark else ''}: "
                        f"{getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise UserError(f"{path}: cannot be read: too many sections in each other, or one in itself") from None


def collect_values(loader: Loader, node: MappingNode, path: Path, prefix: str = "") -> dict[str, Any]:
    """The values in and under a section, whose keys begin with `prefix`."""
    refuse_tag(node, path)
    refuse_repeated_keys(node, path, prefix)
    loader.flatten_mapping(node)
    found = {}
    for name, value in {key.value: value for key, value in node.value}.items():  # its own keys follow the merged ones
        dotted = prefix + name
        inner = collect_values(loader, value, path, f"{dotted}.") if isinstance(value, MappingNode) and value.value \
            else {dotted: read_node(value, path)}
        if twice := sorted(inner.keys() & found.keys()):  # once as a.b and once as b in the section a
            raise UserError(f"{path}: '{twice[0]}' is there twice; leave one of them")
        found |= inner
    return found


def refuse_repeated_keys(node: MappingNode, path: Path, prefix: str) -> None:
    """Raise `UserError` for a key that stands twice in a section, or is no single word."""
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode):
            raise UserError(f"{path}: line {line}: a list or a section cannot be a key")
        if key.value in lines:
            raise UserError(f"{path}: line {line}: duplicate key '{prefix}{key.value}', which line {lines[key.value]} "
                            "has too; leave one of them")
        lines[key.value] = line


def refuse_tag(node: Node, path: Path) -> None:
    """Raise `UserError` for a type that is written out, such as !!int."""
    if node.tag != TAG + {ScalarNode: "str", SequenceNode: "seq", MappingNode: "map"}[type(node)]:
        raise UserError(f"{path}: line {node.start_mark.line + 1}: '{node.tag.replace(TAG, '!!')}' is not known here; "
                        "leave it out")


def read_node(node: Node, path: Path) -> Any:
    """A node as a `Scalar`, a list, or an empty dictionary."""
    refuse_tag(node, path)
    if isinstance(node, SequenceNode):
        return [read_node(item, path) for item in node.value]
    if isinstance(node, MappingNode):
        return {}
    plain, end = node.style is None, node.end_mark
    comment = re.compile(r"[ \t]+(#[^\s#][^\0\r\n]*)").match(end.buffer, end.pointer)
    return Scalar(node.value, node.start_mark.line + 1, plain, comment[1] if comment and plain else "")
