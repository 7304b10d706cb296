"""The facts that each entry of `definitions.py` states about a data set, and the check that they fit together."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.errors import UserError

# How images can be scaled, always antialiased.
INTERPOLATIONS = ("bilinear", "bicubic")

READERS = Path(__file__).with_name("readers")


@dataclass(frozen=True)
class Download:
    """A file to download.

    `md5` is the checksum that its publisher states. Downloads are compared with it; a user's own files are not.
    """

    address: str
    md5: str
    megabytes: int

    @property
    def file_name(self) -> str:
        return self.address.rpartition("/")[2]

    @property
    def is_archive(self) -> bool:
        return self.file_name.endswith((".tgz", ".tar.gz"))


@dataclass(frozen=True)
class HubSource:
    """A data set that the library `datasets` loads; see `hub.py`."""

    name: str                       # the whole dataset.name, hf:...
    path: str                       # owner/name on the Hugging Face hub, or a folder
    config: str = ""                # which of its configurations, where it has several
    columns: tuple[str, ...] = ()   # where several columns hold images or classes, the ones to use


@dataclass(frozen=True)
class Definition:
    """The facts about a data set. Sizes are in pixels; mean and std are per channel, of pixels scaled to 0..1.

    `reader` names a file of `readers/` and the function read_<reader> in it. The function takes the definition and the
    folder that holds `members`, or None where there are none, and returns (pixels, labels) of the training images and
    (pixels, labels) of the test images: (n, image_size, image_size, channels) uint8 and (n,) whole numbers. A data set
    without a reader is a folder with a sub-folder of image files for each class.
    """

    source: str
    licence: str
    paper: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int                         # height and width as stored; for folders the usual input of a model
    reader: str = ""
    classes: tuple[str, ...] = ()           # empty: the names of the class folders
    class_names: tuple[tuple[str, str], ...] = ()  # readable names of class folders
    train_images: int = 0                   # how many the reader has to return; 0: any number
    test_images: int = 0
    downloads: tuple[Download, ...] = ()    # several files, or one archive
    folders: tuple[str, ...] = ()           # sub-folders where the files usually lie; the first is the archive's own
    members: tuple[str, ...] = ()           # files or folders that must be there
    hub: HubSource | None = None

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def has_files(self) -> bool:
        """Whether there are files that `dataset.root` can name."""
        return not self.hub and (bool(self.members) or not self.reader)

    @property
    def needs_root(self) -> bool:
        """Whether nothing can be downloaded, so that `dataset.root` has to be given."""
        return self.has_files and not self.downloads

    @property
    def may_hold_validation(self) -> bool:
        """Whether it may have a validation split of its own beside a test split."""
        return bool(self.hub) or not (self.reader or self.members)


def validate_definition(name: str, definition: Definition) -> None:
    """Raise `UserError` where the facts of an entry do not fit together."""
    mistake = next(find_mistakes(definition), None)
    if mistake:
        raise UserError(f"the entry '{name}' of shared/data/definitions.py {mistake}")


def find_mistakes(definition: Definition) -> Iterator[str]:
    """What is wrong with an entry, each as the end of a sentence about it. Later checks rely on earlier ones."""
    for name in ("mean", "std", "classes", "downloads", "folders", "members"):
        value = getattr(definition, name)
        if not isinstance(value, tuple | list):
            yield f"has {name}={value!r}; expected a tuple, and one of a single value ends in a comma: ({value!r},)"
    mean, std, size = definition.mean, definition.std, definition.image_size
    if len(mean) != len(std) or len(mean) not in (1, 3):
        yield (f"has {len(mean)} values of mean and {len(std)} of std; expected one of each for grey images, three of "
               "each for colour images")
    if not (all(0 <= value <= 1 for value in mean) and all(0 < value <= 1 for value in std)):
        yield f"has mean={mean} and std={std}; expected those of pixels scaled to 0..1, and std above 0"
    if not isinstance(size, int) or size < 1:
        yield f"has image_size={size!r}; expected height and width in pixels, as a whole number"
    if definition.reader:
        if not (READERS / f"{definition.reader}.py").is_file():
            yield (f"has reader='{definition.reader}', but shared/data/readers/{definition.reader}.py does not "
                   f"exist; write it, with a function read_{definition.reader} in it")
        if len(definition.classes) < 2 or len(set(definition.classes)) < len(definition.classes):
            yield (f"has classes={tuple(definition.classes)}; a data set with a reader needs the names of at least two "
                   "classes, each once, in the order of the labels")
    if definition.downloads:
        if not (definition.members and definition.folders):
            yield ("has downloads, but no folders or no members; folders=('NAME',) says where in the cache the files "
                   "are kept, members which of them must be there")
        if len(definition.downloads) > 1 and any(item.is_archive for item in definition.downloads):
            yield "has an archive among several downloads; expected one archive, or files that are not archives"
    for item in definition.downloads:
        if len(item.md5) != 32 or set(item.md5.lower()) - set("0123456789abcdef"):
            yield f"has md5='{item.md5}' for {item.file_name}; expected 32 hexadecimal digits, as md5sum prints them"
