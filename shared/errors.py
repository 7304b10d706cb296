"""What goes wrong through what the user gave us, as opposed to through a mistake of ours."""

import re


class UserError(Exception):
    """A wrong config, file or machine. The message is one line: what was found, what was expected, what to do."""


class StoppedError(Exception):
    """A training that a signal ended after it was saved. The message is one line; `signal` its number."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal


def summarize_error(error: BaseException) -> str:
    """The kind of a library's error and the first line of what it says, to stand within a line of ours."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is PyTorch's, TensorFlow's or Python's way to say that memory has run out.

    Told by names and words, since no framework is imported here: torch.OutOfMemoryError on a GPU and a RuntimeError of
    DefaultCPUAllocator on a CPU; tf.errors.ResourceExhaustedError on both.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    words = ("can't allocate memory", "not enough memory", "std::bad_alloc", "out of memory", "OOM when allocating")
    return bool(names & {"MemoryError", "OutOfMemoryError", "ResourceExhaustedError"}) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words))


def is_process_lost(error: BaseException) -> bool:
    """Whether `error` is gloo's, NCCL's or TensorFlow's way to say that another process is gone."""
    names = {kind.__name__ for kind in type(error).__mro__}
    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed", "heartbeat",
             "Connection refused", "Collective ops is aborted")
    return bool(names & {"UnavailableError", "AbortedError", "DistBackendError", "DistNetworkError"}) or (
        any(word in str(error) for word in words) and bool(names & {"RuntimeError", "OpError"}))


def user_message(error: BaseException) -> str | None:
    """The one line to show for `error`, or None where it is a bug and deserves its traceback.

    A data worker's exception reaches the main process rewritten: torch re-raises the type with the worker's
    traceback as its text, and TensorFlow turns it into an `UnknownError`. Both keep "UserError: <our line>".
    """
    text = str(error)
    if "UserError: " in text:
        return re.search(r"UserError: (.*)", text).group(1).rstrip()
    if "InvalidCxxCompiler" in text:  # torch.compile's, many frames below our call
        return "hardware.compile=true needs a C++ compiler; install g++ or name one in CXX, or leave the key out"
    return " ".join(text.splitlines()) if isinstance(error, UserError) else None
