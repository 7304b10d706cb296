"""The table at the end of `make test-faults`: fault, tried, survived, lost."""

from collections.abc import Callable

import pytest

COUNTS: dict[str, list[int]] = {}


@pytest.fixture
def report() -> Callable[[str, int, int], None]:
    """Counts how often a fault was tried and survived. A test that fails counts nothing: pytest shows it."""
    def count(fault: str, tried: int, survived: int) -> None:
        row = COUNTS.setdefault(fault, [0, 0])
        row[0] += tried
        row[1] += survived
    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if COUNTS:
        terminalreporter.write_line(f"\n{'fault':64} {'tried':>6} {'survived':>9} {'lost':>5}")
    for fault, (tried, survived) in COUNTS.items():
        terminalreporter.write_line(f"{fault:64} {tried:6} {survived:9} {tried - survived:5}")
