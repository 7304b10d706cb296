"""The images of an experiment, split and labelled, the same for both siblings."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.config import Config, DatasetConfig
from shared.data import folder
from shared.data.arrays import read_arrays
from shared.data.copies import settle_copies
from shared.data.decode import describe_dark_bits
from shared.data.definition import Definition
from shared.data.definitions import find_definition
from shared.data.download import locate_files
from shared.data.hub import decode_class
from shared.data.imagenet import read_synsets
from shared.data.images import Images, list_content, list_file_sizes
from shared.data.preprocessing import Preprocessing
from shared.data.sampling import FIXED_SEED, LIMIT, choose_stratified, fingerprint, split_stratified
from shared.errors import UserError
from shared.machine.console import say


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
    root: str = ""              # the folder that holds the files; empty where pixels are in memory
    folders: tuple[str, ...] = ()   # names of the classes' folders; empty where pixels are in memory
    identity: str = ""          # hash of all images and labels, before any limit or validation split
    remarks: tuple[str, ...] = ()   # what a user should know of the images, a line each

    def say_remarks(self, leader: bool = True) -> None:
        for remark in self.remarks:
            say(remark, leader=leader)

    def fingerprints(self) -> dict[str, str]:
        """Hashes to compare runs by, equal wherever the data set lies.

        `data` covers the whole data set: its labels and pixels or, for files, their labels, sizes and paths below the
        root. `split` covers which images train and which validate, in their order, and `test` those that test.
        """
        return {
            "data": self.identity,
            "split": fingerprint(*list_content(self.train, self.root), *list_content(self.val, self.root)),
            "test": fingerprint(*list_content(self.test, self.root)),
        }


@dataclass(frozen=True, eq=False)
class Stored:
    """A data set as it is stored, before any limit and before validation images are taken from the training images."""

    classes: tuple[str, ...]
    splits: dict[str, Images]       # train, test and maybe val
    folders: tuple[str, ...] = ()   # the rest is only for files, see `Data`
    root: str = ""
    skipped: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def load_data(config: Config) -> Data:
    """The data set that a config asks for: downloaded where it is missing, limited and split.

    Validation images are taken from the training images and never from the test images. A limit keeps a stratified
    subset; it applies before validation images are taken, and one above the number of images keeps all. Where a data
    set has no test images of its own, those that are set apart are the same for every seed. Copies are looked for last,
    among the images that are used.

    Raises:
        UserError: files are missing, damaged or cannot be downloaded; a reader is missing or returns something else
            than `Definition` demands; too few images are left to train, validate or test with; or an image is in two
            of these parts and the config refuses that.
    """
    dataset = config.dataset
    definition = find_definition(dataset.name, dataset.variant)
    stored = (load_arrays if definition.reader else load_folder)(dataset, definition)
    splits, root = stored.splits, stored.root
    identity = fingerprint(*(part for images in splits.values() for part in list_content(images, root)),
                           *(list_file_sizes(images) for images in splits.values() if root))

    train = limit_images(splits["train"], dataset.limit_train, config.seed)
    if "val" in splits:
        val = splits["val"]
    else:
        kept, held_out = split_stratified(train.labels, dataset.val_fraction, config.seed)
        train, val = train.take(kept), train.take(held_out)
    test = limit_images(splits["test"], dataset.limit_test, 0)  # the same test images for every seed
    parts, remarks = settle_copies({"train": train, "val": val, "test": test}, dataset.on_duplicate, root)
    remarks = [*stored.remarks, *remarks, describe_dark_bits(parts["train"].files, root) if root else "",
               describe_absent(parts, stored.classes)]

    seen = Preprocessing.of_config(config)
    data = Data(name=dataset.name, classes=stored.classes, **parts, image_size=seen.image_size, channels=seen.channels,
                mean=seen.mean, std=seen.std, skipped=stored.skipped, root=root, folders=stored.folders,
                identity=identity, remarks=tuple(filter(None, remarks)))
    try:
        validate_data(data, config)
    except UserError:
        data.say_remarks()  # one of them may be the reason
        raise
    return data


def load_arrays(dataset: DatasetConfig, definition: Definition) -> Stored:
    place = locate_files(definition, dataset.root) if definition.members else None
    train, test = read_arrays(dataset.name, definition, place)
    splits = {name: Images(labels, pixels, None) for name, (pixels, labels) in (("train", train), ("test", test))}
    return Stored(definition.classes, splits)


def load_folder(dataset: DatasetConfig, definition: Definition) -> Stored:
    root = locate_files(definition, dataset.root) if definition.members else Path(dataset.root).expanduser().absolute()
    folders, listings, left_out = folder.scan_folder(root, allow_empty=bool(definition.hub))
    remarks = []
    # What a publisher's archive holds beside the images, or a folder that this repository wrote, needs no line.
    if left_out and not (definition.downloads or definition.hub):
        remarks.append(f"left out: {left_out.describe()}; the first is {os.path.relpath(left_out.first, root)}")
    splits = {name: Images(labels, None, files) for name, (files, labels) in listings.items()}
    skipped = []
    if dataset.on_bad_image == "skip":
        for name, images in splits.items():
            bad = folder.find_unreadable(images.files)
            skipped += images.files[bad].tolist()
            splits[name] = images.take(~bad)
        if skipped:
            remarks.append(folder.describe_skipped(skipped))
    if "test" not in splits:
        if "val" in splits:  # ImageNet and Imagenette publish no labels of test images; results are those on val
            splits["test"] = splits.pop("val")
        else:
            kept, held_out = split_stratified(splits["train"].labels, dataset.test_fraction, FIXED_SEED)
            splits["train"], splits["test"] = splits["train"].take(kept), splits["train"].take(held_out)
    if definition.hub:
        folders = tuple(map(decode_class, folders))
    readable = dict(definition.class_names) or (read_synsets() if set(folders) <= read_synsets().keys() else {})
    classes = tuple(readable.get(name, name) for name in folders)
    return Stored(classes, splits, folders, str(root), tuple(skipped), tuple(remarks))


def limit_images(images: Images, count: int, seed: int) -> Images:
    """A stratified subset of `count` images; all where `count` is 0 or above their number."""
    if count == 0 or count >= len(images):
        return images
    return images.take(choose_stratified(images.labels, count, seed, LIMIT))


def describe_absent(parts: dict[str, Images], classes: tuple[str, ...]) -> str:
    """A line about classes of which no image validates or tests; empty where each class has one."""
    found = []
    for part, name in (("val", "validation"), ("test", "test")):
        absent = np.setdiff1d(np.arange(len(classes)), parts[part].labels)
        if len(absent) and len(parts[part]):
            more = ", ..." if len(absent) > 3 else ""
            names = ", ".join(classes[label] for label in absent[:3])
            found.append(f"no {name} image of {len(absent)} of {len(classes)} classes ({names}{more})")
    return f"{' and '.join(found)}, so nothing is measured of them; add images, or hold more out" if found else ""


def validate_data(data: Data, config: Config) -> None:
    """Raise `UserError` where too few images are left."""
    train, dataset = data.train, config.dataset
    absent = np.setdiff1d(np.arange(len(data.classes)), train.labels)
    if len(absent):
        raise UserError(f"no training image of class '{data.classes[absent[0]]}' is left; raise dataset.limit_train "
                        f"({dataset.limit_train}), lower dataset.val_fraction, or add images")
    if len(data.val) == 0:
        raise UserError(f"dataset.val_fraction={dataset.val_fraction:g} of {len(train)} training images leaves none to "
                        "validate with, as each class keeps one; raise it or dataset.limit_train, or add images")
    if len(data.test) == 0:
        raise UserError(f"no images are left to test with; raise dataset.test_fraction={dataset.test_fraction:g}, or "
                        "add images")
    if config.train.batch_size > len(train):
        raise UserError(f"train.batch_size={config.train.batch_size} is more than the {len(train)} training images; "
                        "lower it, or raise dataset.limit_train")
