"""The images of an experiment, split and labelled, the same for both siblings."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from shared.config import Config, DatasetConfig
from shared.datasets import folder
from shared.datasets.arrays import Arrays
from shared.datasets.definition import Definition
from shared.datasets.definitions import find_definition
from shared.datasets.download import locate_files
from shared.datasets.imagenet import read_synsets
from shared.datasets.sampling import FIXED_SEED, LIMIT, choose_stratified, fingerprint, split_stratified
from shared.errors import UserError


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images: one array in memory, or files to decode on the fly. The arrays are read-only.

    `files` has a fixed width because data workers share it; a list of strings is copied into each, page by page, as its
    reference counts change.
    """

    labels: np.ndarray          # (n,) int64
    pixels: np.ndarray | None   # (n, H, W, C) uint8, C is 1 or 3
    files: np.ndarray | None    # (n,) str of fixed width, absolute paths

    def __post_init__(self) -> None:
        assert (self.pixels is None) != (self.files is None), "either pixels or files"
        for name in ("labels", "pixels", "files"):
            array = getattr(self, name)
            if array is not None:
                assert len(array) == len(self.labels), f"{len(array)} {name} for {len(self.labels)} labels"
                view = array.view()
                view.flags.writeable = False
                object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Images":
        """The images at these positions, (k,) integers or (n,) bool, in this order."""
        return Images(self.labels[indices], None if self.pixels is None else self.pixels[indices],
                      None if self.files is None else self.files[indices])


@dataclass(frozen=True, eq=False)
class Data:
    """A data set as an experiment uses it."""

    name: str
    classes: tuple[str, ...]
    train: Images
    val: Images
    test: Images
    image_size: int             # pixels; height and width that the model sees
    channels: int               # 1 or 3
    mean: tuple[float, ...]     # per channel, of pixels scaled to 0..1
    std: tuple[float, ...]
    skipped: tuple[str, ...] = ()   # unreadable files that were left out
    root: str = ""              # folder that the files lie in; empty where pixels are in memory
    folders: tuple[str, ...] = ()   # what the classes' folders are called; empty where pixels are in memory
    identity: str = ""          # hash of all images and labels, before any limit or validation split

    def fingerprints(self) -> dict[str, str]:
        """Hashes to compare runs by, equal wherever the data set lies.

        `data` covers the whole data set: pixels and labels or, of a folder, relative paths, labels and file sizes.
        `split` covers which images train and which validate, in their order; `test` which ones test.
        """
        return {
            "data": self.identity,
            "split": fingerprint(*list_content(self.train, self.root), *list_content(self.val, self.root)),
            "test": fingerprint(*list_content(self.test, self.root)),
        }


def load_data(config: Config) -> Data:
    """The data set that a config asks for, downloaded where need be, limited and split.

    Validation is taken from the training images and never from the test set. A limit takes a stratified subset, of the
    training images before validation is split off; a limit above the number of images means all of them. The test set
    of `digits` and of a folder without one is drawn the same for every seed.

    Raises:
        UserError: files are missing, damaged or cannot be downloaded; or too few images are left to train, validate or
            test with.
    """
    dataset = config.dataset
    definition = find_definition(dataset.name, dataset.variant)
    if definition.reader:
        train, test = read_arrays(dataset, definition)
        classes, folders, splits, root, skipped = definition.classes, (), {"train": train, "test": test}, "", ()
    else:
        classes, folders, splits, root, skipped = read_folder(dataset, definition)
    identity = fingerprint(*(part for images in splits.values() for part in list_content(images, root)),
                           *(list_file_sizes(images) for images in splits.values() if root))

    train = limit_images(splits["train"], dataset.limit_train, config.seed)
    if "val" in splits:
        val = splits["val"]
    else:
        kept, held_out = split_stratified(train.labels, dataset.val_fraction, config.seed)
        train, val = train.take(kept), train.take(held_out)
    test = limit_images(splits["test"], dataset.limit_test, 0)  # the same test images for every seed

    data = Data(name=dataset.name, classes=classes, train=train, val=val, test=test,
                image_size=dataset.image_size or definition.image_size, channels=definition.channels,
                mean=spread_over_channels(dataset.mean, definition.mean), std=spread_over_channels(dataset.std, definition.std),
                skipped=skipped, root=root, identity=identity, folders=folders)
    validate_data(data, config)
    return data


def find_reader(definition: Definition) -> Callable[[Definition, Path | None], tuple[Arrays, Arrays]]:
    """The function read_<reader> of shared/datasets/readers/<reader>.py. Raises `UserError` where it is not there."""
    place, name = f"shared.datasets.readers.{definition.reader}", f"read_{definition.reader}"
    try:
        return getattr(import_module(place), name)
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name != place:
            raise
        raise UserError(f"the data set's entry names reader='{definition.reader}', but there is no function {name} in "
                        f"{place.replace('.', '/')}.py; write it") from None


def read_arrays(dataset: DatasetConfig, definition: Definition) -> tuple[Images, Images]:
    place = locate_files(definition, dataset.root) if definition.members else None
    train, test = find_reader(definition)(definition, place)
    return Images(train[1], train[0], None), Images(test[1], test[0], None)


def read_folder(dataset: DatasetConfig, definition: Definition
                ) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, Images], str, tuple[str, ...]]:
    """Classes, the names of their folders, the images of train, test and maybe val, the folder they lie in, and the
    files that were left out."""
    root = locate_files(definition, dataset.root) if definition.members else Path(dataset.root).expanduser().absolute()
    names, listings = folder.scan_folder(root)
    splits = {name: Images(labels, None, files) for name, (files, labels) in listings.items()}
    skipped = []
    if dataset.on_bad_image == "skip":
        for name, images in splits.items():
            bad = folder.find_unreadable(images.files)
            skipped += images.files[bad].tolist()
            splits[name] = images.take(~bad)
        folder.report_skipped(skipped)
    if "test" not in splits:
        if "val" in splits:  # ImageNet and Imagenette publish no test labels: their val is what results are told of
            splits["test"] = splits.pop("val")
        else:
            kept, held_out = split_stratified(splits["train"].labels, dataset.test_fraction, FIXED_SEED)
            splits["train"], splits["test"] = splits["train"].take(kept), splits["train"].take(held_out)
    readable = dict(definition.class_names) or (read_synsets() if set(names) <= read_synsets().keys() else {})
    return tuple(readable.get(name, name) for name in names), names, splits, str(root), tuple(skipped)


def spread_over_channels(given: list[float], own: tuple[float, ...]) -> tuple[float, ...]:
    """A value per channel: the data set's `own` unless `given`; of grey images the mean over given colours."""
    if not given or len(given) == len(own):
        return tuple(given) or own
    return (sum(given) / len(given),) * len(own)


def limit_images(images: Images, count: int, seed: int) -> Images:
    """A stratified subset; all of them where `count` is 0 or not below their number."""
    if count == 0 or count >= len(images):
        return images
    return images.take(choose_stratified(images.labels, count, seed, LIMIT))


def validate_data(data: Data, config: Config) -> None:
    """Raise `UserError` where too few images are left."""
    train, dataset = data.train, config.dataset
    if len(data.val) == 0:
        raise UserError(f"dataset.val_fraction={dataset.val_fraction:g} of {len(train)} training images leaves none to "
                        "validate with; raise it, or dataset.limit_train")
    if len(data.test) == 0:
        raise UserError(f"no images are left to test with; raise dataset.test_fraction={dataset.test_fraction:g}, or "
                        "add images")
    if config.train.batch_size > len(train):
        raise UserError(f"train.batch_size={config.train.batch_size} is more than the {len(train)} training images; "
                        "lower it, or raise dataset.limit_train")
    absent = np.setdiff1d(np.arange(len(data.classes)), train.labels)
    if len(absent):
        raise UserError(f"no training image of class '{data.classes[absent[0]]}' is left; raise dataset.limit_train "
                        f"({dataset.limit_train}), lower dataset.val_fraction, or add images")


def list_content(images: Images, root: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and pixels or paths relative to `root`: what tells one set of images from another."""
    if images.files is None:
        return images.labels, images.pixels
    return images.labels, np.array([file.removeprefix(root).lstrip("/") for file in images.files.tolist()], np.str_)


def list_file_sizes(images: Images) -> np.ndarray:
    """(n,) int64, bytes."""
    try:
        return np.array([os.path.getsize(file) for file in images.files.tolist()], np.int64)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; remove the broken link, or restore the file") from error
