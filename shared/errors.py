"""Errors that the user can mend, as opposed to mistakes of this repository, and the one line that shows each."""

import re

LONGEST = 120  # characters of what a message quotes


class UserError(Exception):
    """A wrong config, file or machine. The message is one line: what was found, what was expected, what to do."""


class StoppedError(Exception):
    """A signal ended the training after its state was saved. The message is one line; `signal` is the number of it."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal


def summarise_error(error: BaseException) -> str:
    """The class of a library's error and the first line of its message, to be quoted in a message of ours."""
    return ": ".join(filter(None, (type(error).__name__, *str(error).strip().splitlines()[:1])))


def shorten(text: str, longest: int = LONGEST) -> str:
    """`text`, or its beginning and its end where it is longer than a line."""
    return text if len(text) <= longest else f"{text[:longest * 2 // 3]} ... {text[-longest // 4:]}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory has run out, in PyTorch, TensorFlow or Python.

    It is recognised by the names of its classes and by words of its message, since no framework is imported here.
    PyTorch raises torch.OutOfMemoryError on a GPU and a RuntimeError of DefaultCPUAllocator on a CPU, TensorFlow
    tf.errors.ResourceExhaustedError on both.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    words = ("can't allocate memory", "not enough memory", "std::bad_alloc", "out of memory", "OOM when allocating")
    return bool(names & {"MemoryError", "OutOfMemoryError", "ResourceExhaustedError"}) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words))


def is_process_lost(error: BaseException) -> bool:
    """Whether `error` says that another process of the run has ended, in gloo, NCCL or TensorFlow."""
    names = {kind.__name__ for kind in type(error).__mro__}
    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed", "heartbeat",
             "Connection refused", "Collective ops is aborted")
    return bool(names & {"UnavailableError", "AbortedError", "DistBackendError", "DistNetworkError"}) or (
        any(word in str(error) for word in words) and bool(names & {"RuntimeError", "OpError"}))


def extract_user_message(error: BaseException) -> str | None:
    """The one line to show for `error`; None where it is a bug, whose traceback has to be seen.

    An exception of a process that reads data is changed on its way to the main process: PyTorch raises the same type
    with the other process' traceback as its text, and TensorFlow raises an `UnknownError`. Both keep the words
    "UserError: <our line>".
    """
    text = str(error)
    if "UserError: " in text:
        return shorten_quotes(re.search(r"UserError: (.*)", text).group(1).rstrip())
    if "InvalidCxxCompiler" in text:  # raised by torch.compile, many frames below our call
        return "hardware.compile=true needs a C++ compiler; install g++ or name one in CXX, or leave the key out"
    line = "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.splitlines()))
    return shorten_quotes(line) if isinstance(error, UserError) else None


def shorten_quotes(line: str) -> str:
    """A message in which nothing that it quotes, and no single word, is longer than a line.

    A word may be twice as long, since it may be a path that the reader has to find.
    """
    return re.sub(rf"(?<![^\s=(])'[^']{{{LONGEST},}}'|\S{{{2 * LONGEST},}}", lambda found: shorten(found[0]), line)
