"""A program that wants a terminal, run in one that nobody sees."""

import fcntl
import os
import pty
import select
import struct
import termios
import time
from pathlib import Path

SECONDS = 30


def run_in_terminal(command: list[str], folder: Path, environment: dict[str, str], until: str, leave: str) -> str:
    """Run `command` until it has drawn `until`, then type `leave`; what it drew, once it has ended with status 0."""
    child, terminal = pty.fork()
    if child == 0:  # the new process; whatever happens, it must not come back into the tests
        try:
            os.chdir(folder)
            os.execvpe(command[0], command, environment | {"TERM": "xterm-256color"})
        finally:
            os._exit(127)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))  # rows, columns, no pixels
    drawn, typed, end = b"", False, time.monotonic() + SECONDS
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                new = os.read(terminal, 65536)
            except OSError:  # Linux's way to say that the program has closed its terminal
                new = b""
            if not new:
                break
            drawn += new
        if until.encode() in drawn and not typed:
            os.write(terminal, leave.encode())
            typed = True
    else:
        os.kill(child, 9)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(terminal)
    assert typed, f"{command} never drew {until!r}, but {drawn[-2000:]!r}"
    assert status == 0, f"{command} ended with {status}: {drawn[-2000:]!r}"
    return drawn.decode(errors="replace")
