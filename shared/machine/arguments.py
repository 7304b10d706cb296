"""Command lines of words and --options, as argparse reads them."""

import argparse

from shared.errors import UserError


class Parser(argparse.ArgumentParser):
    """A parser that raises `UserError`, so that all mistakes of the user are shown in the same way."""

    def error(self, message: str) -> None:
        raise UserError(f"{message}; see --help")
