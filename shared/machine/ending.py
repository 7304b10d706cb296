"""How a command ends: with one line for a mistake of the user's, and with an exit status that says what happened."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable

from shared.errors import StoppedError, UserError, extract_user_message
from shared.machine.interpreters import explain_missing_package

CLOSED_PIPE = 141  # as a shell counts a process that SIGPIPE ended, 128 + 13


def report_errors(work: Callable[[], object], any_words: bool = False, advice: str = "") -> None:
    """Do `work`, and leave with the status that says how it ended. Only a bug leaves with a traceback.

    With `any_words`, the words of the command line may be names of files in another encoding than the locale's.
    `advice` says what can be done after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character gets its number
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            report_mistakes(work, any_words, advice)
        finally:  # now, because what Python cannot write at its end it tells in lines of its own
            for stream in filter(None, (sys.stdout, sys.stderr)):  # one that was closed from the start is None
                stream.flush()
    except OSError as error:
        if not drop_broken_output():
            raise
        if isinstance(error, BrokenPipeError):  # `| head` has read enough
            sys.exit(CLOSED_PIPE)
        with contextlib.suppress(OSError):
            print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(2)


def drop_broken_output() -> bool:
    """Whether stdout or stderr cannot be written to. Whichever cannot leads nowhere from now on."""
    found = False
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            if found:  # the other one may be whole; what it could not write is still in its buffer
                stream.flush()
            else:
                print(file=stream, flush=True)  # a line to try, since what failed before may not be in the buffer
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            found = True
    return found


def require_readable_words() -> None:
    """Raise `UserError` where Python could not read a word of the command line in the locale's encoding. It keeps such
    bytes as surrogates, which no file of ours can hold."""
    for word in sys.argv[1:]:
        if re.search("[\udc80-\udcff]", word):
            raise UserError(f"the encoding {sys.getfilesystemencoding()} of this locale cannot read the word "
                            f"{word!a}; set LC_ALL=C.UTF-8 or PYTHONUTF8=1")


def report_mistakes(work: Callable[[], object], any_words: bool, advice: str) -> None:
    try:
        if not any_words:
            require_readable_words()
        work()
    except StoppedError as stopped:
        if str(stopped):  # of several processes one speaks
            print(f"\n{stopped}", file=sys.stderr)
        sys.exit(128 + stopped.signal)  # as a shell counts a process that the signal ended
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning answers Ctrl-C itself and leaves with status 1.
        if not (isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)):
            raise
        print("\nstopped" + (f"; {advice}" if advice else ""), file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        known = explain_missing_package(error) if isinstance(error, ModuleNotFoundError) else None
        line = extract_user_message(known or error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
