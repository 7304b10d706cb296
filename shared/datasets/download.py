"""From an address to complete files on disk: fetched, verified, unpacked; or found where the user has them.

Whatever bears its final name is complete: downloads and archives grow under another name and are moved when done.
"""

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

from shared.datasets.definition import Definition, Download
from shared.errors import UserError

DOWNLOADING, UNPACKING = ".downloading", ".unpacking-"


def find_cache_folder() -> Path:
    """Where downloads are kept: the environment variable TEMPLATE_CACHE, or the system's usual cache folder."""
    import pooch

    return Path(os.environ.get("TEMPLATE_CACHE") or pooch.os_cache("lightning-keras-template")).expanduser().absolute()


def locate_files(definition: Definition, root: str) -> Path:
    """The folder that holds all of a data set's files.

    With `root` empty they are downloaded into the cache, unless they are there. Otherwise they are looked for in `root`
    and in its usual sub-folders, an official archive lying there is unpacked beside itself, and nothing is downloaded.

    Raises:
        UserError: a file is missing from `root`, cannot be downloaded or written, or is not what was published.
    """
    if root:
        base = Path(root).expanduser().absolute()
        places = [base, *(base / name for name in definition.folders)]
    else:
        base = find_cache_folder()
        places = [base / definition.folders[0]]
    try:
        return find_complete(definition, places) or obtain_files(definition, base, places, may_download=not root)
    except OSError as error:
        raise UserError(f"{error.filename or base}: {error.strerror or error}; free or choose another place for the "
                        "files with the environment variable TEMPLATE_CACHE or dataset.root=...") from error


def obtain_files(definition: Definition, base: Path, places: list[Path], may_download: bool) -> Path:
    archive = next((base / item.file_name for item in definition.downloads if item.is_archive), None)
    # An incomplete folder of the archive's name is not ours to replace; below it is told what it lacks.
    begun = archive is not None and any(len(list_missing(definition, place)) < len(definition.members) for place in places)
    if not begun and (may_download or (archive is not None and archive.is_file())):
        # Siblings, or the processes of one run, may start together: one fetches, the others find what it left.
        with lock_folder(base):
            if not find_complete(definition, places):
                if may_download:
                    fetch_files(definition, base, places[0])
                if archive is not None:
                    unpack_archive(archive, definition, is_ours=may_download)
    if found := find_complete(definition, places):
        return found
    # The place that lacks least is the one that was meant.
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
    """Only one process at a time is inside, for each folder. The lock ends with the process, however that ends."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that prepares files in {folder}", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def fetch_files(definition: Definition, base: Path, place: Path) -> None:
    """Download what is not there yet: an archive into `base`, single files into `place`. Call as the sole writer."""
    for item in definition.downloads:
        target = (base if item.is_archive else place) / item.file_name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            fetch_file(item, target)


def fetch_file(item: Download, target: Path) -> None:
    """Download one file. `target` appears only when it is whole and has the published checksum. Raises `UserError`."""
    import pooch
    from requests import RequestException

    growing = target.parent / DOWNLOADING
    shutil.rmtree(growing, ignore_errors=True)  # what a killed download left
    print(f"downloading {item.address} ({item.megabytes} MB) to {target}", file=sys.stderr)
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
    except ValueError as error:  # pooch's for a checksum that differs
        raise UserError(f"{item.address} is not the published file: its MD5 is not {item.md5}; it was removed. Try "
                        "again, or name a folder with the right one with dataset.root=...") from error
    finally:
        shutil.rmtree(growing, ignore_errors=True)


def unpack_archive(archive: Path, definition: Definition, is_ours: bool) -> None:
    """Unpack an archive beside itself, so that its folder appears only when it is whole. Call as the sole writer.

    Our own archive is deleted afterwards, and also when it turns out to be damaged; a user's is left alone.

    Raises:
        UserError: the archive is damaged, lacks its folder, or has a member that is no plain file or folder in it.
    """
    folder = definition.folders[0]
    for left in archive.parent.glob(f"{UNPACKING}{folder}-*"):  # by a killed process
        shutil.rmtree(left, ignore_errors=True)
    growing = Path(tempfile.mkdtemp(prefix=f"{UNPACKING}{folder}-", dir=archive.parent))
    try:
        extract_archive(archive, growing)
        if absent := list_missing(definition, growing / folder):
            raise tarfile.ReadError(f"it holds no {folder}/{absent[0]}")
        os.replace(growing / folder, archive.parent / folder)
        if is_ours:
            archive.unlink()
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        if is_ours:
            archive.unlink()
        advice = "it was deleted; run again" if is_ours else f"delete it and get {definition.downloads[0].address} anew"
        raise UserError(f"{archive} cannot be unpacked ({str(error).splitlines()[0]}); {advice}") from error
    finally:
        shutil.rmtree(growing, ignore_errors=True)


def extract_archive(archive: Path, target: Path) -> None:
    """Extract a gzipped tar file. Raises `tarfile.TarError` for a member that would leave `target`."""
    with (open(archive, "rb") as packed, tarfile.open(fileobj=packed, mode="r:gz") as tar,
          tqdm(desc=f"unpacking {archive.name}", total=archive.stat().st_size, unit="B", unit_scale=True, disable=None,
               leave=False) as bar):
        for member in tar:
            # Links are how an archive gets around a check of names, and none of these data sets has any.
            if not (member.isfile() or member.isdir()):
                raise tarfile.ReadError(f"'{member.name}' is neither a file nor a folder")
            tar.extract(member, target, filter="data")
            bar.update(packed.tell() - bar.n)
        while tar.fileobj.read(2**20):  # tar stops at its own end; gzip's checksum stands after that
            pass
