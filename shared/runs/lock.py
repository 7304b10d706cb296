"""A run folder belongs to one process at a time: a lock that ends with its process, and a file that says whose it is.

.lock           locked by the operating system, which lets go of it however the process ends
.holder.json    host, number and start of the process that holds it; its time of change is the holder's sign of life

On one machine the lock decides. Another machine may not see it, since not every network file system hands locks on, and
judges by the sign of life, which the holder renews every BEAT seconds. No two clocks are compared for that: the other
machine looks whether the sign changes while it watches. Only one that is older than STALE seconds is not watched at
all, and its age is measured with the time that the same file server gives to a file now.
"""

import contextlib
import datetime
import errno
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.machine.console import say
from shared.machine.files import write_json

LOCK, HOLDER = ".lock", ".holder.json"
BEAT = 15.0  # seconds between two signs of life
WATCH = 75.0  # longer than a beat and the minute for which NFS may show an old time of change
STALE = 3600.0
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # of a file system that has none

# The locks of this process, by device and inode of their folders, which stay where a folder is renamed.
MINE: dict[tuple[int, int], "RunLock"] = {}


class UnavailableError(UserError):
    """A run folder cannot be had. `reason` is the message without the advice what to do."""

    def __init__(self, reason: str, advice: str):
        super().__init__(f"{reason}; {advice}")
        self.reason = reason


class RunLock:
    """The hold of this process on a run folder, until `release` or the end of the process.

    `lost` says that another process has taken the folder over, since it saw no sign of life here for long.
    """

    def __init__(self, folder: Path):
        from filelock import FileLock  # here, because --help must not wait for it

        self.folder, self.holder = folder, folder / HOLDER
        self.file = FileLock(folder / LOCK, thread_local=False)
        self.me = {"host": socket.gethostname(), "pid": os.getpid(), "process_start": read_process_start(os.getpid()),
                   "machine": identify_machine(),
                   "since": datetime.datetime.now().astimezone().isoformat(" ", "seconds")}
        self.released = threading.Event()
        self.lost = False

    @classmethod
    def acquire(cls, folder: Path) -> "RunLock":
        """Take hold of a run folder. An earlier training of this same process that left its hold gives it up.

        Raises:
            UnavailableError: where another process holds the folder, or it cannot be written to.
        """
        try:
            place = (folder.stat().st_dev, folder.stat().st_ino)
            if place in MINE:
                MINE[place].release()
            lock = cls(folder)
            lock.take()
        except OSError as error:
            raise UnavailableError(f"{folder} cannot be written to ({error.strerror or error})", "a run goes on only "
                                   "where it may write; copy the folder and name the copy with resume=") from None
        MINE[place] = lock
        # A daemon, so that it keeps no process alive. It sleeps but for a touch of a file every BEAT seconds.
        threading.Thread(target=lock.show_life, name="run-folder", daemon=True).start()
        return lock

    def take(self) -> None:
        from filelock import Timeout

        has_locks = True
        try:
            self.file.acquire(blocking=False)
        except Timeout:
            holder = read_holder(self.holder)
            advice = "wait for it or stop it, or begin another run with resume=none"
            if holder and holder["machine"] != self.me["machine"]:
                advice += f"; where that machine is down, delete {self.folder / LOCK}"
            raise UnavailableError(describe_holder(self.folder, holder), advice) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            has_locks = False
        try:
            holder = read_holder(self.holder)
            if holder and self.is_alive(holder, has_locks):
                raise UnavailableError(describe_holder(self.folder, holder),
                                       "wait for it or stop it, or begin another run with resume=none")
            write_json(self.holder, self.me)
        except BaseException:
            self.file.release()
            raise

    def is_alive(self, holder: dict[str, Any], has_locks: bool) -> bool:
        """Whether the process that a holder file names still runs, though it does not keep us from locking."""
        if holder["machine"] == self.me["machine"]:
            if has_locks:
                return False
            if holder["process_start"] is not None:  # a number is given again, but not with the same start
                return read_process_start(holder["pid"]) == holder["process_start"]
        before = read_change(self.holder)
        (self.folder / LOCK).touch()
        if before is None or abs((self.folder / LOCK).stat().st_mtime - before) > STALE:
            return False
        say(f"{describe_holder(self.folder, holder)}; watching for up to {WATCH:.0f} s whether it still does")
        until = time.monotonic() + WATCH
        while time.monotonic() < until:
            time.sleep(min(1.0, WATCH / 10))
            if (now := read_change(self.holder)) != before:
                return now is not None  # without the file it has just been released
        return False

    def show_life(self) -> None:
        """Renew the sign of life until the release, or until another process has taken the folder over."""
        while not self.released.wait(BEAT):
            with contextlib.suppress(OSError):  # a file server that is away for a while
                self.lost = read_holder(self.holder) != self.me
                if self.lost:
                    return
                os.utime(self.holder)

    def release(self) -> None:
        """Let go of the folder. A second call does nothing, nor does one in a process that was forked from this one."""
        if self.released.is_set() or os.getpid() != self.me["pid"]:
            return
        self.released.set()
        for place in [place for place, lock in MINE.items() if lock is self]:
            del MINE[place]
        with contextlib.suppress(OSError):
            if read_holder(self.holder) == self.me:
                self.holder.unlink()
        with contextlib.suppress(OSError):
            self.file.release()


def describe_holder(folder: Path, holder: dict[str, Any] | None) -> str:
    if holder is None:  # it is about to write the file
        return f"{folder} is in use by another process"
    return f"{folder} is in use by process {holder['pid']} on {holder['host']} since {holder['since']}"


def read_holder(path: Path) -> dict[str, Any] | None:
    """Who holds a run folder; None where nobody is named. Raises `OSError` where the file cannot be read."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return holder if {"host", "pid", "process_start", "machine", "since"} <= holder.keys() else None
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def read_change(path: Path) -> float | None:
    """When a file was changed; None where there is none. It is opened, so that NFS asks its server."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None


def identify_machine() -> str:
    """What is the same for processes that see each other's locks and numbers: host, boot and container."""
    found = [socket.gethostname()]
    with contextlib.suppress(OSError):  # elsewhere than on Linux the name has to do
        found += [Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip(),
                  os.readlink("/proc/self/ns/pid")]
    return " ".join(found)


def read_process_start(pid: int) -> int | None:
    """When a process began, in the kernel's ticks since the boot; None where there is none, or no /proc to say so.

    One that has ended counts as none, though a container whose first process does not look after orphans keeps it.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        fields = after_name.split()  # from the third on; the second one, the name, may have spaces
        return None if fields[0] == "Z" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
