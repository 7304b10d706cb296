"""Files of an image folder that are no part of the data set: the system's own, and those that are left out and told."""

import subprocess
import sys

import pytest
from PIL import Image

from shared.data import endings, folder
from shared.data.endings import list_endings
from shared.data.loading import load_data
from shared.errors import UserError
from shared.machine.files import REPOSITORY
from tests.shared.pictures import config_for, make_pictures, names

CLASSES = {"cat": 10, "dog": 10}  # so that each class has an image in each part


def scan(root):
    """Class names, the files that train below the root, and what is said of the others."""
    classes, listings, left_out = folder.scan_folder(root)
    files, _ = listings["train"]
    return classes, [file.removeprefix(f"{root}/") for file in files.tolist()], left_out.describe()


# The system's own

@pytest.mark.parametrize("own", ["@eaDir", "#recycle", "@Recycle", "lost+found", "$RECYCLE.BIN", "~snapshot",
                                 "System Volume Information", "__MACOSX", ".Trashes", ".@__thumb"])
@pytest.mark.parametrize("place", [".", "cat", "cat/deep", "dog/one/two"])
def test_a_systems_folder_is_passed_over_at_every_depth(tmp_path, own, place):
    plain = scan(make_pictures(tmp_path / "plain", CLASSES))
    root = make_pictures(tmp_path / "kept", CLASSES)
    make_pictures(root, {f"{place}/{own}": 1, f"{place}/{own}/cat.png": 2, f"{place}/{own.upper()}": 2})
    assert scan(root) == plain


@pytest.mark.parametrize("own", ["#snapshot", "Temporary Items", "found.000"])
def test_a_systems_folder_is_no_class_of_a_split_and_no_unused_folder(tmp_path, own):
    layout = {f"{split}/{name}": 10 for split in ("train", "test") for name in CLASSES}
    plain = load_data(config_for(make_pictures(tmp_path / "plain", layout)))
    root = make_pictures(tmp_path / "kept", layout | {own: 1, f"train/{own}": 2, f"train/{own}/cat": 2})
    data = load_data(config_for(root))
    assert data.fingerprints() == plain.fingerprints()
    assert data.remarks == ()


def test_a_systems_files_are_not_told(tmp_path):
    root = make_pictures(tmp_path, CLASSES)
    for name in ("Thumbs.db", "cat/Desktop.ini", "dog/.DS_Store", "dog/._000.png", "cat/ehthumbs.db"):
        (root / name).touch()
    assert scan(root)[2] == ""


def test_a_class_may_be_called_nearly_as_a_systems_folder(tmp_path):
    similar = ("@home", "found", "recycle", "recycled", "snapshot", "trash")
    assert scan(make_pictures(tmp_path, dict.fromkeys(similar, 1)))[0] == similar


# What is left out is counted and named in one line

@pytest.mark.parametrize(("others", "told"), [
    (["cat/a.txt"], "1 file ending in .txt; the first is cat/a.txt"),
    (["dog/b.MP4", "dog/a.mp4", "cat/z.raw"], "2 files ending in .mp4, 1 file ending in .raw; the first is cat/z.raw"),
    (["README", "labels.csv", "dog/deep/LICENSE"],
     "2 files without an ending, 1 file ending in .csv; the first is README"),
    (["cat/a.heic", "cat/b.HEIC"], "2 files ending in .heic (for .heic: pip install pillow-heif); the first is "
                                   "cat/a.heic"),
    (["cat/a.psd", "cat/a.ico", "cat/a.pdf", "cat/a.eps", "cat/a.h5", "cat/a.gbr", "cat/a.mpg"],
     "1 file ending in .eps, 1 file ending in .gbr, 1 file ending in .h5, 1 file ending in .ico, 1 file ending in "
     ".mpg, 2 files with other endings; the first is cat/a.eps"),
])
def test_files_with_other_endings(tmp_path, others, told):
    root = make_pictures(tmp_path, CLASSES)
    for name in others:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("no image")
    data = load_data(config_for(root))
    assert data.remarks == (f"left out: {told}",)
    assert len(data.train) + len(data.val) + len(data.test) == 20


@pytest.mark.parametrize(("beside", "told"), [
    ({"dev/cat": 1}, "1 folder (dev); the first is dev"),
    ({"eval/cat": 1, "unlabelled": 4, "": 2},
     "2 files ending in .png, 2 folders (eval, unlabelled); the first is 000.png"),
    ({"train": 3, "test": 1}, "4 files ending in .png; the first is test/000.png"),
    ({"cow": 2, "a": 1, "b": 1, "c": 1, "d": 1, "e": 1}, "6 folders (a, b, c, cow, d, ...); the first is a"),
])
def test_what_lies_beside_the_splits_and_the_classes(tmp_path, beside, told):
    layout = {f"{split}/{name}": 3 for split in ("train", "test") for name in CLASSES}
    data = load_data(config_for(make_pictures(tmp_path, layout | beside), val_fraction=0.4))
    assert data.remarks == (f"left out: {told}",)
    assert len(data.train) + len(data.val) + len(data.test) == 12


def test_a_class_of_nothing_but_other_files_says_which(tmp_path):
    root = make_pictures(tmp_path, {"cat": 2, "dog": 0})
    for name in ("a.heif", "b.heif", "c.txt"):
        (root / "dog" / name).touch()
    with pytest.raises(UserError, match=r"dog holds no images, but 2 files ending in \.heif, 1 file ending in \.txt "
                                        r"\(for \.heif: pip install pillow-heif\); fill the class or remove it"):
        load_data(config_for(root))


def test_what_a_publisher_laid_beside_the_images_is_not_told(tmp_path):
    wnids = ["n01440764", "n02102040"]
    root = make_pictures(tmp_path, {f"{split}/{name}": 4 for split in ("train", "val") for name in wnids})
    (root / "noisy_imagenette.csv").touch()
    (root / "LOC_train_solution.csv").touch()
    data = load_data(config_for(root, "imagenette", val_fraction=0.25))
    assert data.remarks == ()
    assert load_data(config_for(root, "imagenet_mini", val_fraction=0.25)).remarks == (
        "left out: 2 files ending in .csv; the first is LOC_train_solution.csv",)


# What Pillow reads

@pytest.mark.parametrize(("ending", "kind"), [
    (".jfif", "JPEG"), (".jpe", "JPEG"), (".JP2", "JPEG2000"), (".mpo", "MPO"), (".tga", "TGA"), (".apng", "PNG"),
    (".pnm", "PPM"), (".dib", "BMP")])
def test_what_pillow_reads_is_listed(tmp_path, ending, kind):
    root = make_pictures(tmp_path, CLASSES)
    Image.new("RGB", (6, 4), (9, 99, 200)).save(root / "cat" / f"more{ending}", kind)
    assert f"cat/more{ending}" in scan(root)[1]
    data = load_data(config_for(root, on_bad_image="skip"))
    assert (len(data.train) + len(data.val) + len(data.test), data.remarks) == (21, ())


def test_every_listed_ending_is_of_a_format_that_pillow_opens_itself():
    formats = Image.registered_extensions()
    listed = {formats[ending] for ending in list_endings()}
    stubs = {name for name, (factory, _) in Image.OPEN.items() if "Stub" in getattr(factory, "__name__", "")}
    assert {"BUFR", "GRIB", "HDF5", "WMF"} <= stubs
    assert listed <= {*Image.OPEN, "MPO"} - stubs - {"EPS", "MPEG"}
    assert listed >= {"JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"}
    assert list_endings()[: len(endings.USUAL)] == endings.USUAL  # the hub's files are named after the first


# Stands in for the package, which is not installed here: it reads PNG under the name of HEIF.
PLUGIN = """
from PIL import Image, PngImagePlugin

class HeifImageFile(PngImagePlugin.PngImageFile):
    format = "HEIF"

def register_heif_opener():
    Image.register_open("HEIF", HeifImageFile, lambda prefix: prefix.startswith(b"\\x89PNG"))
    Image.register_extensions("HEIF", [".heic", ".heif"])
"""


def test_heic_is_read_where_its_plug_in_is_installed(tmp_path):
    root = make_pictures(tmp_path / "root", CLASSES)
    for number in range(3):
        (root / "cat" / f"{number:03}.png").rename(root / "cat" / f"{number:03}.heic")
    (tmp_path / "pillow_heif.py").write_text(PLUGIN)
    script = ("import sys; from shared.data.loading import load_data; from tests.shared.pictures import config_for; "
              "data = load_data(config_for(sys.argv[1], on_bad_image='skip')); "
              "print(len(data.train) + len(data.val) + len(data.test), data.remarks)")

    def count(*places):
        return subprocess.run([sys.executable, "-c", script, str(root)], capture_output=True, text=True, check=True,
                              env={"PYTHONPATH": ":".join(map(str, places))}, cwd=REPOSITORY).stdout
    assert count(tmp_path, REPOSITORY) == "20 ()\n"
    assert count(REPOSITORY).startswith("17 ('left out: 3 files ending in .heic (for .heic: pip install pillow-heif)")


# Unlabelled images, and names that read alike

@pytest.mark.parametrize(("layout", "part"), [
    ({"test": 4}, "test"), ({"val": 3, "test/cat": 2, "test/dog": 2}, "val"), ({"test/images": 4}, "test"),
    ({"test/unknown/deep": 2, "test": 1}, "test")])
def test_images_without_classes(tmp_path, layout, part):
    root = make_pictures(tmp_path, {"train/cat": 4, "train/dog": 4} | layout)
    number = sum(count for place, count in layout.items() if place.startswith(part))
    with pytest.raises(UserError, match=rf"{part} holds {number} images without their classes, which cannot be scored; "
                                        rf"move it out of dataset\.root, or sort them into .*{part}/<class>"):
        load_data(config_for(root))
    for place in [place for place in layout if place.startswith(part)]:
        (root / place).rename(tmp_path.parent / f"{tmp_path.name}-{place.replace('/', '-')}")
    if not (root / part).exists():
        assert load_data(config_for(root, val_fraction=0.25)).classes == ("cat", "dog")


NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(("train", "other"), [(NFC, NFD), (NFD, NFC), ("\u1e69et", "s\u0323\u0307et"), ("Cat", "cat"),
                                              ("cat", "cat "), ("\uff21", "A")])
def test_a_class_that_another_split_writes_otherwise(tmp_path, train, other):
    root = make_pictures(tmp_path, {f"train/{train}": 3, "train/z": 3, f"val/{other}": 2, "val/z": 2})
    with pytest.raises(UserError) as caught:
        load_data(config_for(root))
    assert str(caught.value).endswith(f"splits need the same classes; its {other!a} is {train!a} written "
                                      "otherwise, rename one of them")


@pytest.mark.parametrize("pair", [(NFC, NFD), ("\u00c5", "\u212b"), ("n\u0303", "\u00f1")])
def test_two_classes_that_read_the_same(tmp_path, pair):
    root = make_pictures(tmp_path, dict.fromkeys((*pair, "dog"), 2))
    with pytest.raises(UserError, match=r"has two folders that read .*, which Unicode can write in two ways") as caught:
        load_data(config_for(root))
    assert all(ascii(name) in str(caught.value) for name in pair)


def test_an_ordinary_folder_has_no_remarks(tmp_path):
    root = make_pictures(tmp_path, CLASSES)
    data = load_data(config_for(root))
    assert data.remarks == ()
    assert names(data.train, root) == sorted(names(data.train, root))
