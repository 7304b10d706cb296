"""The command line of a program that takes options in place of the keys of an experiment."""

import argparse

from shared.errors import UserError


class Parser(argparse.ArgumentParser):
    """A parser that raises `UserError`, so that all mistakes of the user are shown in the same way."""

    def error(self, message: str) -> None:
        raise UserError(f"{message}; see --help")
