"""What is written in a file or on the command line, read as the type that its key has in the schema.

YAML guesses a type from the look of a value: 007 and 1e3 are numbers, and in YAML 1.1 so are 2024_06_01 and 12:30:45,
and `no` is false. Here the schema knows the type, so that a text is always what was written.
"""

import re
from dataclasses import Field, dataclass
from typing import Any, get_args

from shared.config.schema import name_type
from shared.errors import UserError, shorten

NOTHING = ("", "~", "null", "Null", "NULL")  # how YAML 1.2 writes that there is no value
MISSING = "???"  # OmegaConf's word for the same
HINTS = {int: "write a whole decimal number", float: "write a decimal number such as 0.1 or 1e-3",
         bool: "write true or false", str: "write a single value"}
# An item of a list on the command line: in quotes, or without commas, brackets and braces but for those of ${key}.
ITEM = r"""(?:"[^"]*"|'[^']*'|(?!["'\s])(?:\$\{[^{}]*\}|[^][{},])+(?<!\s))"""
LIST = re.compile(rf"\[\s*(?:{ITEM}\s*(?:,\s*{ITEM}\s*)*)?\]")


@dataclass(frozen=True)
class Scalar:
    """A single value as it is written. `line` is that of its file, counted from 1; None on the command line.

    `plain` says that a file has it without quotes, and `comment` is what follows it as a comment without a space
    behind the '#'.
    """
    text: str
    line: int | None = None
    plain: bool = False
    comment: str = ""


def read_value(given: Any, item: Field, origin: str, dotted: str) -> Any:
    """`given`, a `Scalar` or a list of them, as the value of the key `dotted`, whose field in the schema is `item`.

    A value that refers to other keys stays a text.

    Raises:
        UserError: where it is of another type, or may not be what its writer meant.
    """
    place = locate(origin, given)
    kind, *_ = get_args(item.type) or [item.type]
    try:
        if isinstance(given, list) and get_args(item.type):
            return [read_scalar(one, kind, place, dotted) for one in given]
        if isinstance(given, Scalar) and (kind is item.type or has_reference(given) or is_missing(given, kind)):
            return read_scalar(given, kind, place, dotted)
    except ValueError:
        pass
    hint = HINTS[kind] if kind is item.type else "write a list such as [a, b]" if kind is str else \
        "write a list such as [0.5, 0.5]"
    raise UserError(f"{place}: {dotted}={shorten(repr(to_plain(given)))} is not of type {name_type(item)}; {hint}")


def read_scalar(given: Any, kind: type, place: str, dotted: str) -> Any:
    """A single value, or an item of a list, as a `kind`. Raises `ValueError` where it is none."""
    if not isinstance(given, Scalar):
        raise ValueError
    text = given.text
    if is_missing(given, kind):
        quotes = f"; put it in quotes if the text '{text}' is meant" if kind is str and text and text != MISSING else ""
        raise UserError(f"{place}: '{dotted}' has no value; give one, or leave the key out for its default{quotes}")
    if kind is str and given.comment:
        raise UserError(f"{place}: '{dotted}' is followed by '{given.comment}'; put the value in quotes if that is a "
                        "part of it, or a space after the '#' if it is a comment")
    if kind is str or has_reference(given):
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    if not text.isascii() or text != text.strip():  # Python takes other scripts' digits, and spaces around a number
        raise ValueError
    return kind(re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", text.lower()))  # YAML writes .inf and .nan


def is_missing(given: Scalar, kind: type) -> bool:
    """Whether there is no value. A text may be empty, or the word null, where nothing but a text can be meant."""
    return given.text == MISSING or (given.text in NOTHING and (given.plain or kind is not str))


def has_reference(given: Any) -> bool:
    """Whether other keys have to be filled in, as in run_${seed}."""
    return any(map(has_reference, given)) if isinstance(given, list) else isinstance(given, Scalar) and \
        "${" in given.text


def split_list(text: str) -> list[Scalar] | None:
    """The items of a list as the command line has it, such as [a, 'b, c']; None where `text` is none."""
    if not LIST.fullmatch(text):
        return None
    items = [found.group() for found in re.finditer(ITEM, text[1:-1])]
    return [Scalar(item[1:-1] if item[0] in "\"'" else item) for item in items]


def locate(origin: str, given: Any) -> str:
    """Where a value stands, with its line where it is one of a file."""
    while isinstance(given, list) and given:
        given = given[0]
    line = getattr(given, "line", None)
    return f"{origin}: line {line}" if line else origin


def to_plain(given: Any) -> Any:
    """What is written, without where."""
    return list(map(to_plain, given)) if isinstance(given, list) else getattr(given, "text", given)
