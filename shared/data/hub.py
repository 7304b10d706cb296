"""Data sets that the library `datasets` loads, from the Hugging Face hub or from a folder.

`dataset.name=hf:PATH@CONFIG#COLUMN,COLUMN`, where all but PATH may be left out. PATH is owner/name on the hub, or a
folder. CONFIG is one of the configurations of a data set that has several. The columns say which one holds the images
and which one the classes where a data set has several of a kind.

The images are written into the cache once, as class folders. From then on they are read as any image folder is, and
neither the library nor the network is needed.
"""

import hashlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from shared.data.definition import Definition, HubSource
from shared.errors import UserError
from shared.machine.console import say

PREFIX = "hf:"
SPLITS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}

Class = str | int | bool


def define_hub_dataset(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Definition:
    """The facts about the data set that `dataset.name` names: an image folder that the library fills."""
    source = parse_hub_name(name)
    return Definition(source=f"https://huggingface.co/datasets/{source.path}", licence="see its page", paper="",
                      mean=mean, std=std, image_size=224, hub=source, folders=(name_cache_folder(source),),
                      members=("train",))


def parse_hub_name(name: str) -> HubSource:
    """The parts of hf:PATH@CONFIG#COLUMN,COLUMN."""
    text = name.removeprefix(PREFIX)
    if os.path.isdir(os.path.expanduser(text)):  # a folder's own name may hold these signs
        return HubSource(name, text)
    rest, _, columns = text.partition("#")
    path, _, config = rest.partition("@")
    return HubSource(name, path, config, tuple(filter(None, columns.split(","))))


def name_cache_folder(source: HubSource) -> str:
    """Where below the cache folder a data set is kept.

    The name for a folder carries a hash of where it lies and of its files' names, sizes and times of change, so that
    changed files are read anew.
    """
    folder = Path(os.path.expanduser(source.path)).resolve()
    if folder.is_dir():
        facts = [(str(path), path.stat().st_size, path.stat().st_mtime_ns)
                 for path in sorted(folder.rglob("*")) if path.is_file()]
        digest = hashlib.sha256(repr((str(folder), source.config, source.columns, facts)).encode()).hexdigest()[:16]
        return f"hf/{encode_name(folder.name)}-{digest}"
    words = source.name.removeprefix(PREFIX)
    return f"hf/{encode_name(words.replace('/', '--'))}"  # the hub allows no name with two hyphens in a row


def explain_error(source: HubSource, reason: str) -> UserError:
    return UserError(f"dataset.name={source.name}: {reason}")


def encode_name(name: str) -> str:
    """A name in which what no file system allows is replaced by %XX, as in an address."""
    return re.sub(r'[\x00-\x1f%/\\:*?"<>|]', lambda found: f"%{ord(found[0]):02X}", name)


def decode_class(folder: str) -> str:
    """The name of the class whose images lie in a folder that `write_class_folders` made."""
    return unquote(folder.partition("_")[2])


def write_class_folders(source: HubSource, target: Path) -> None:
    """Write each image of a data set to `target`/<split>/<class>/<row>.<ending>, as the bytes that the data set holds.

    A class folder is called <number>_<name>, so that sorted folders are in the order in which the data set numbers its
    classes. A class without any image gets none.

    Raises:
        UserError: the library is not installed, or it cannot load the data set; there is no train split; no column of
            images or of classes can be told; or a split has classes that the train split lacks.
    """
    splits = load_splits(source)
    image, label = choose_columns(source, splits["train"].features)
    labels = {split: read_classes(rows, label) for split, rows in splits.items()}
    for split, found in list(labels.items()):
        if lost := found.count(None):
            say(f"{source.name}: images of split {split} without a class are left out: {lost} of {len(found)}")
        if lost == len(found):
            del labels[split]
    folders = name_class_folders(source, labels, splits["train"].features[label])
    for split, found in labels.items():
        places = {one: target / split / folder for one, folder in folders.items()}
        for place in places.values():
            place.mkdir(parents=True)
        write_images(splits[split], image, [places.get(one) for one in found],
                     f"writing the {split} images of {source.name}")


def write_images(rows: Any, image: str, places: list[Path | None], title: str) -> None:
    """Write the column `image` of each row into the folder that `places` has for it, if it has one."""
    from datasets import Image
    from tqdm import tqdm

    rows = rows.select_columns([image]).cast_column(image, Image(decode=False))
    rows = tqdm(rows, desc=title, unit="image", disable=None, leave=False)
    for number, (row, place) in enumerate(zip(rows, places, strict=True)):
        if place is not None:
            content, path = read_content(row[image])
            (place / f"{number:08}{find_ending(content, path)}").write_bytes(content)


def load_splits(source: HubSource) -> dict[str, Any]:
    """`{"train": datasets.Dataset}`, and maybe "val" and "test". Raises `UserError`."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise explain_error(source, "the package datasets is not installed; pip install 'datasets>=4' installs it, and "
                            "so does make setup with hf among its EXTRAS") from None
    path = os.path.expanduser(source.path)
    if path.startswith((".", os.sep)) and not os.path.isdir(path):
        raise explain_error(source, f"{path} is not a folder; name one, or a data set of the hub: hf:owner/name")
    say(f"loading {source.name} with the library datasets")
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(path, source.config or None)
    except Exception as error:  # the library, its readers of files and its network clients raise dozens of kinds
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
        reason = (str(cause or error).strip().splitlines() or ["no reason given"])[0]
        raise explain_error(source, f"it cannot be loaded ({type(cause or error).__name__}: {reason}); check the name "
                            "and the network. A data set that is not public needs hf auth login") from error
    splits = {}
    for split, rows in found.items():
        ours = SPLITS.get(split)
        if ours is None or ours in splits:
            say(f"{source.name}: split {split} is left out")
        else:
            splits[ours] = rows
    if "train" not in splits:
        raise explain_error(source, f"it has the splits {', '.join(found)}; expected one that is called train")
    return splits


def choose_columns(source: HubSource, features: dict[str, Any]) -> tuple[str, str]:
    """The columns that hold the images and the classes.

    Without a choice of the user's they are told by their types, `datasets.Image` and `datasets.ClassLabel`. A column of
    texts or whole numbers holds the classes where the user says so. Raises `UserError`.
    """
    from datasets import ClassLabel, Image

    listed = ", ".join(f"{column} ({describe_feature(feature)})" for column, feature in features.items())
    if unknown := [column for column in source.columns if column not in features]:
        raise explain_error(source, f"there is no column '{unknown[0]}'; there are {listed}")
    images = [column for column, feature in features.items() if isinstance(feature, Image)]
    classes = [column for column, feature in features.items() if isinstance(feature, ClassLabel)]
    images = [column for column in source.columns if column in images] or images
    classes = [column for column in source.columns if column not in images] or classes
    for what, chosen in (("images, of type Image,", images), ("classes, of type ClassLabel,", classes)):
        if len(chosen) != 1:
            raise explain_error(source, f"expected one column of {what} found {', '.join(chosen) or 'none'}; the "
                                f"columns are {listed}. Name the one to use: {source.name.partition('#')[0]}#COLUMN")
    feature = features[classes[0]]
    if not isinstance(feature, ClassLabel) and not re.match("u?int|bool|(large_)?string", describe_feature(feature)):
        raise explain_error(source, f"column '{classes[0]}' holds {describe_feature(feature)}; expected ClassLabel, "
                            f"texts or whole numbers. The columns are {listed}")
    return images[0], classes[0]


def describe_feature(feature: Any) -> str:
    """The type of a column, such as Image, ClassLabel, string or int64."""
    return getattr(feature, "dtype", "") if type(feature).__name__ == "Value" else type(feature).__name__


def read_classes(rows: Any, label: str) -> list[Class | None]:
    """The class of each row: its name, or the text or number in the column; None where a row has none."""
    from shared.data.endings import SYSTEM_FOLDERS

    values, names = list(rows[label]), getattr(rows.features[label], "names", None)
    if names is None:
        return values
    # -1: not published. What lies in a system's folder of a local copy has that folder's name.
    return [None if value is None or value < 0 or names[value].lower() in SYSTEM_FOLDERS else names[value]
            for value in values]


def name_class_folders(source: HubSource, labels: dict[str, list[Class | None]], feature: Any) -> dict[Class, str]:
    """`{class: name of its folder}` for all classes that have images. Raises `UserError`."""
    if "train" not in labels:
        raise explain_error(source, "no image of its train split has a class; name another column, or another data set")
    used = set(labels["train"]) - {None}
    for split, found in labels.items():
        if extra := set(found) - used - {None}:
            raise explain_error(source, f"class '{min(extra, key=str)}' has images in its {split} split and none in "
                                "its train split; expected classes that can be learned")
    names = getattr(feature, "names", None) or sorted(used)
    if empty := [found for found in names if found not in used]:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        say(f"{source.name}: classes without an image are left out: {', '.join(map(str, empty[:5]))}{more}")
    names = [found for found in names if found in used]
    if len(names) < 2:
        raise explain_error(source, f"all its images are of class '{names[0]}'; expected two classes or more")
    digits = len(str(len(names) - 1))
    return {found: f"{number:0{digits}}_{encode_name(str(found))}" for number, found in enumerate(names)}


def read_content(value: dict[str, Any] | None) -> tuple[bytes, str]:
    """The file of one image and the name that the data set has for it, which may be empty.

    A row without an image becomes an empty file, which counts as unreadable when images are read.
    """
    if value is None:
        return b"", ""
    content, path = value["bytes"], value["path"] or ""
    return (Path(path).read_bytes() if content is None else content), path


def find_ending(content: bytes, path: str) -> str:
    """What the file of an image ends in: as in the data set, else as its format is, else as the most common one."""
    from PIL import Image

    from shared.data.endings import list_endings

    ending = os.path.splitext(path)[1].lower()
    if ending in list_endings():
        return ending
    try:
        with Image.open(io.BytesIO(content)) as image:
            formats = Image.registered_extensions()
            return next((ending for ending in list_endings() if formats.get(ending) == image.format), ".jpg")
    except Exception:  # decoders raise many kinds; whether a file that cannot be read stops the run is asked later
        return ".jpg"
