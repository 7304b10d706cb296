"""What has to be known about a data set: the types that its entry in `definitions.py` is made of."""

from dataclasses import dataclass

# How images can be scaled, always antialiased.
INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class Download:
    """A file to fetch. The checksum is its publisher's; it is asked of downloads only, never of a user's own files."""

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
class Definition:
    """The facts about a data set. Sizes are in pixels; mean and std are per channel, of pixels scaled to 0..1.

    `reader` names a file of `readers/` and the function read_<reader> in it, which takes the definition and the folder
    that holds `members`, or None where there are none, and returns training and test images. A data set without a
    reader is a folder with a sub-folder of image files for each class.
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
    train_images: int = 0
    test_images: int = 0
    downloads: tuple[Download, ...] = ()    # several files, or one archive
    folders: tuple[str, ...] = ()           # sub-folders where the files usually lie; the first is the archive's own
    members: tuple[str, ...] = ()           # files or folders that must be there

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def has_files(self) -> bool:
        """Whether there are files that `dataset.root` can name."""
        return bool(self.members) or not self.reader

    @property
    def needs_root(self) -> bool:
        """Whether nothing can be downloaded, so that `dataset.root` has to be given."""
        return self.has_files and not self.downloads
