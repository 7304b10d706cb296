"""What goes wrong through what the user gave us, as opposed to through a mistake of ours."""

import re


class UserError(Exception):
    """A wrong config, file or machine. The message is one line: what was found, what was expected, what to do."""


class StoppedError(Exception):
    """A training that a signal ended after it was saved. The message is one line; `signal` its number."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal


def user_message(error: BaseException) -> str | None:
    """The one line to show for `error`, or None where it is a bug and deserves its traceback.

    A data worker's exception reaches the main process rewritten: torch re-raises the type with the worker's
    traceback as its text, and TensorFlow turns it into an `UnknownError`. Both keep "UserError: <our line>".
    """
    text = str(error)
    if "UserError: " in text:
        return re.search(r"UserError: (.*)", text).group(1).rstrip()
    return " ".join(text.splitlines()) if isinstance(error, UserError) else None
