"""What the schema says of one key."""

from dataclasses import field
from typing import Any


def key(default: Any, meaning: str, *, unit: str = "", choices: tuple = (), low: float | None = None,
        high: float | None = None, above: float | None = None, prefixes: tuple[str, ...] = (), only: str = "",
        only_choices: dict[str, str] | None = None, speed: bool = False) -> Any:
    """A field of the schema.

    `low` and `high` are inclusive bounds, `above` an exclusive lower one. A value that begins with one of `prefixes` is
    a choice too. `only` names the one sibling that honours the key; `only_choices` those that honour single choices.
    `speed` marks a key that changes how fast a run is and nothing else.
    """
    facts = {"meaning": meaning, "unit": unit, "choices": choices, "prefixes": prefixes, "low": low, "high": high,
             "above": above, "only": only, "only_choices": only_choices or {}, "speed": speed}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=facts)
    return field(default=default, metadata=facts)
