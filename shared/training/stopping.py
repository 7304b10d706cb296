"""Signals that ask a training to stop: it is told at the next step, saves, and leaves in good order."""

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Remembers SIGTERM and SIGINT instead of dying of them; the second SIGINT interrupts at once."""

    def __init__(self):
        self.signal: int | None = None
        self.previous: dict[int, object] = {}

    def install_handlers(self) -> None:
        """Take the signals over, also from whoever took them in the meantime. Only a main thread can."""
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
