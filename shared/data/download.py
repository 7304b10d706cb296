"""The files of a data set: found where the user has them, or downloaded, compared with their checksum and unpacked.

A file or folder that has its final name is complete, since everything is written under another name and moved when it
is done.
"""

import glob
import gzip
import os
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from shared.data.definition import Definition, Download
from shared.errors import UserError
from shared.machine.console import say
from shared.machine.files import expand_home

LOCK, DOWNLOADING, UNPACKING = ".lock", ".downloading", ".unpacking-"


def find_cache_folder() -> Path:
    """Where downloads are kept: the environment variable TEMPLATE_CACHE, or the system's usual cache folder."""
    import pooch

    return expand_home(os.environ.get("TEMPLATE_CACHE") or pooch.os_cache("lightning-keras-template")).absolute()


def locate_files(definition: Definition, root: str) -> Path:
    """The folder that holds all of a data set's files.

    With `root` empty, this is a folder in the cache, and what it lacks is downloaded. Otherwise the files are looked
    for in `root` and in the sub-folders where they usually lie; an official archive in `root` is unpacked there, and
    nothing is downloaded.

    Raises:
        UserError: a file is missing from `root`, cannot be downloaded or written, or is not what was published.
    """
    base, places = list_places(definition, root)
    try:
        return find_complete(definition, places) or obtain_files(definition, base, places, may_download=not root)
    except OSError as error:
        raise UserError(f"{error.filename or base}: {error.strerror or error}; free or choose another place for the "
                        "files with the environment variable TEMPLATE_CACHE or dataset.root=...") from error


def list_places(definition: Definition, root: str) -> tuple[Path, list[Path]]:
    """The user's folder or the cache, and where in it the files may lie."""
    if root:
        base = Path(root).expanduser().absolute()
        return base, [base, *(base / name for name in definition.folders)]
    base = find_cache_folder()
    return base, [base.joinpath(*definition.folders[:1])]


def are_files_here(definition: Definition, root: str) -> bool:
    """Whether the files of a data set are where `locate_files` looks for them, so that nothing need be downloaded."""
    return find_complete(definition, list_places(definition, root)[1]) is not None


def obtain_files(definition: Definition, base: Path, places: list[Path], may_download: bool) -> Path:
    """Download and unpack what is missing, and return the one of `places` that is then complete. Raises `UserError`."""
    archive = next((base / item.file_name for item in definition.downloads if item.is_archive), None)
    # A folder that holds some of the members is the user's or was damaged. It is not replaced; the error below says
    # what it lacks.
    begun = archive is not None and any(len(list_missing(definition, place)) < len(definition.members)
                                        for place in places)
    if not begun and (may_download or (archive is not None and archive.is_file())):
        # Both siblings, or the processes of one run, may start at once. The first one downloads; the others wait and
        # then find the files.
        with lock_folder(base):
            if not find_complete(definition, places):
                if may_download:
                    fetch_files(definition, base, places[0])
                if archive is not None:
                    unpack_archive(archive, definition, is_ours=may_download)
    if found := find_complete(definition, places):
        return found
    # The user most likely meant the place that lacks least.
    place = min(places, key=lambda place: len(list_missing(definition, place)))
    lost = list_missing(definition, place)[0]
    if may_download and not definition.downloads:
        raise UserError(f"this data set is not downloaded; name the folder that holds {lost} with dataset.root")
    if may_download:
        raise UserError(f"{place / lost} is missing from the cache; delete the folder {place} and run again")
    addresses = {item.file_name: item.address for item in definition.downloads}
    address = addresses.get(lost) or next(iter(addresses.values()), definition.source)
    raise UserError(f"{place / lost} does not exist; get it from {address}"
                    + (", or leave dataset.root out to have it downloaded" if definition.downloads else ""))


def find_complete(definition: Definition, places: list[Path]) -> Path | None:
    return next((place for place in places if not list_missing(definition, place)), None)


def list_missing(definition: Definition, place: Path) -> list[str]:
    """Members that are not in a folder; a gz file may lie there unpacked too."""
    return [name for name in definition.members
            if not (place / name).exists() and not (name.endswith(".gz") and (place / name[:-3]).exists())]


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Let one process at a time go on, for each folder. The lock ends with the process, however the process ends."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        say(f"waiting for another process that prepares files in {folder}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def fetch_files(definition: Definition, base: Path, place: Path) -> None:
    """Download what is not there yet: an archive into `base`, all else into `place`.

    No other process may write there meanwhile; see `lock_folder`.
    """
    if definition.hub:
        from shared.data.hub import write_class_folders

        place.parent.mkdir(parents=True, exist_ok=True)
        with open_temporary_folder(place.parent, place.name) as growing:
            write_class_folders(definition.hub, growing / place.name)
            os.replace(growing / place.name, place)
    for item in definition.downloads:
        target = (base if item.is_archive else place) / item.file_name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            fetch_file(item, target)


@contextmanager
def open_temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """An empty folder in `parent`, in which `name` is written before it is moved to its place. It is removed at the
    end, and so is one that a killed process left."""
    prefix = f"{UNPACKING}{name.replace('/', '-')}-"
    for left in parent.glob(f"{glob.escape(prefix)}*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fetch_file(item: Download, target: Path) -> None:
    """Download one file. `target` appears only when it is whole and has the published checksum. Raises `UserError`."""
    import pooch
    from requests import RequestException

    growing = target.parent / DOWNLOADING
    shutil.rmtree(growing, ignore_errors=True)  # a killed download may have left it
    say(f"downloading {item.address} ({item.megabytes} MB) to {target}")
    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**18)
    try:
        pooch.retrieve(item.address, known_hash=f"md5:{item.md5}", fname=item.file_name, path=growing,
                       downloader=downloader)
        os.replace(growing / item.file_name, target)
    except RequestException as error:
        response = error.response
        reason = type(error).__name__ if response is None else f"HTTP status {response.status_code}"
        raise UserError(f"{item.address} cannot be downloaded ({reason}); try again, or download it elsewhere and name "
                        "its folder with dataset.root=...") from error
    except ValueError as error:  # pooch raises it for a checksum that differs
        raise UserError(f"{item.address} is not the published file: its MD5 is not {item.md5}; it was removed. Try "
                        "again, or name a folder with the right one with dataset.root=...") from error
    finally:
        shutil.rmtree(growing, ignore_errors=True)


def unpack_archive(archive: Path, definition: Definition, is_ours: bool) -> None:
    """Unpack an archive beside itself, so that its folder appears only when it is whole.

    An archive that was downloaded here is deleted afterwards, also where it turns out to be damaged; a user's own is
    kept. No other process may write there meanwhile; see `lock_folder`.

    Raises:
        UserError: the archive is damaged, lacks its folder, or has a member that is no plain file or folder in it.
    """
    parent, folder = archive.parent, definition.folders[0]
    with open_temporary_folder(parent, folder) as growing:
        try:
            extract_archive(archive, growing)
            if absent := list_missing(definition, growing / folder):
                raise tarfile.ReadError(f"it holds no {folder}/{absent[0]}")
            (parent / folder).parent.mkdir(parents=True, exist_ok=True)
            os.replace(growing / folder, parent / folder)
            if is_ours:
                archive.unlink()
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            if is_ours:
                archive.unlink()
            advice = "it was deleted; run again" if is_ours else (
                f"delete it and get {definition.downloads[0].address} anew")
            raise UserError(f"{archive} cannot be unpacked ({str(error).splitlines()[0]}); {advice}") from error


def extract_archive(archive: Path, target: Path) -> None:
    """Extract a gzipped tar file. Raises `tarfile.TarError` for a member that would leave `target`."""
    with (open(archive, "rb") as packed, tarfile.open(fileobj=packed, mode="r:gz") as tar,
          tqdm(desc=f"unpacking {archive.name}", total=archive.stat().st_size, unit="B", unit_scale=True, disable=None,
               leave=False) as bar):
        for member in tar:
            # A link can lead out of the folder whatever its name is, and none of these data sets has any.
            if not (member.isfile() or member.isdir()):
                raise tarfile.ReadError(f"'{member.name}' is neither a file nor a folder")
            tar.extract(member, target, filter="data")
            bar.update(packed.tell() - bar.n)
        while tar.fileobj.read(2**20):  # gzip's checksum comes after the archive's end and is compared when it is read
            pass
