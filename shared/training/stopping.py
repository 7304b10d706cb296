"""Signals that ask a training to stop. It saves its state after the step in progress and then ends."""

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Remembers in `signal` that SIGTERM or SIGINT has arrived. A SIGINT after that interrupts at once."""

    def __init__(self):
        self.signal: int | None = None
        self.previous: dict[int, object] = {}  # the handlers that ours replaced

    def install_handlers(self) -> None:
        """Install the handlers, again where somebody has replaced them. In a thread other than the main thread, which
        alone may do that, nothing happens."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            handler = signal.signal(number, self.remember_signal)
            self.previous.setdefault(number, handler)

    def restore_handlers(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}

    def remember_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
