"""Data sets that the library `datasets` loads, here from folders, since tests reach no network."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shared.data import download
from shared.data.loading import load_data
from shared.errors import UserError
from tests.shared.pets import (
    PETS,
    HubHandler,
    config_for,
    describe,
    encode,
    make_split,
    needs_library,
)


@pytest.fixture
def write(tmp_path, monkeypatch, cache):
    """Writes a data set as Parquet files, {split: {column: values}} of these features, and returns its folder."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))  # read when `datasets` is first imported
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")

    def write(splits, features):
        datasets.disable_progress_bars()
        place = tmp_path / "pets" / "data"  # laid out as on the hub
        place.mkdir(parents=True, exist_ok=True)
        for split, columns in splits.items():
            rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
            rows.to_parquet(place / f"{split}-00000-of-00001.parquet")
        return place.parent
    return write


@needs_library
def test_a_data_set_is_written_once_and_read_as_a_folder(write, cache, capsys, monkeypatch):
    folder = write({"train": make_split(20), "validation": make_split(6, first=20), "test": make_split(4, first=26)},
                   describe(*PETS))
    data = load_data(config_for(folder))
    assert data.classes == data.folders == PETS  # in the data set's own order
    assert [len(images) for images in (data.train, data.val, data.test)] == [20, 6, 4]
    assert (data.image_size, data.channels, data.mean) == (224, 3, (0.485, 0.456, 0.406))
    for images, first in ((data.train, 0), (data.val, 20), (data.test, 26)):
        for file, label in zip(images.files, images.labels, strict=True):
            number = int(Path(file).stem)
            assert Path(file).read_bytes() == encode(first + number)  # the very bytes
            assert label == number % 2
    assert capsys.readouterr().err == f"loading hf:{folder} with the library datasets\n"
    assert {path.name for path in cache.iterdir()} == {"hf", download.LOCK}
    assert len(list((cache / "hf").iterdir())) == 1  # and no temporary folder

    monkeypatch.setitem(sys.modules, "datasets", None)  # neither the library nor the network is needed again
    assert load_data(config_for(folder)).fingerprints() == data.fingerprints()
    assert capsys.readouterr().err == ""


@needs_library
def test_a_folder_that_has_changed_is_read_anew(write):
    folder = write({"train": make_split(20)}, describe(*PETS))
    assert len(load_data(config_for(folder)).train) == 16  # of the others two are for testing, two for validation
    write({"train": make_split(30)}, describe(*PETS))
    assert len(load_data(config_for(folder)).train) == 24


@needs_library
def test_without_a_test_split_val_is_the_test(write):
    folder = write({"train": make_split(20), "validation": make_split(6)}, describe(*PETS))
    data = load_data(config_for(folder, val_fraction=0.2))
    assert [len(images) for images in (data.train, data.val, data.test)] == [16, 4, 6]


@needs_library
def test_a_data_set_with_a_validation_split_needs_no_fraction(write):
    splits = {split: make_split(8) for split in ("train", "validation", "test")}
    assert len(load_data(config_for(write(splits, describe(*PETS)), val_fraction=0.0)).train) == 8


@needs_library
def test_images_without_a_class_and_classes_without_an_image(write, capsys):
    train, test = make_split(20), make_split(4)
    train["kind"][3], test["kind"] = -1, [-1] * 4
    folder = write({"train": train, "test": test, "extra": make_split(4)}, describe("dog", "cat", "cow"))
    data = load_data(config_for(folder))
    assert data.classes == ("dog", "cat")
    assert len(data.train) + len(data.val) + len(data.test) == 19  # the test images are taken from those to train
    assert capsys.readouterr().err.splitlines()[1:] == [
        f"hf:{folder}: split extra is left out",
        f"hf:{folder}: images of split train without a class are left out: 1 of 20",
        f"hf:{folder}: images of split test without a class are left out: 4 of 4",
        f"hf:{folder}: classes without an image are left out: cow"]


@needs_library
def test_a_test_split_may_lack_a_class(write):
    folder = write({"train": make_split(20), "test": make_split(1)}, describe(*PETS))
    assert load_data(config_for(folder)).test.labels.tolist() == [0]


@needs_library
def test_a_bad_image_is_skipped_or_told(write, capsys):
    train = make_split(20)
    train["picture"][4] = {"bytes": b"no picture", "path": "four.png"}
    train["picture"][5] = None
    folder = write({"train": train, "test": make_split(4)}, describe(*PETS))
    data = load_data(config_for(folder, on_bad_image="skip"))
    assert len(data.train) + len(data.val) == 18
    assert [file.rpartition("/")[2] for file in data.skipped] == ["00000004.png", "00000005.jpg"]


@needs_library
def test_the_ending_of_a_file_is_that_of_its_format(write):
    kinds = ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"]
    train = {"picture": [{"bytes": encode(number, kind), "path": None} for number, kind in enumerate(kinds * 4)],
             "kind": [number % 2 for number in range(24)]}
    data = load_data(config_for(write({"train": train, "test": make_split(4)}, describe(*PETS))))
    endings = {int(file.rpartition("/")[2][:8]): file.rpartition(".")[2] for file in data.train.files}
    assert all(endings[number] == ("jpg", "png", "gif", "bmp", "webp", "tif")[number % 6] for number in endings)


@needs_library
def test_an_image_folder_of_the_library(tmp_path, write):
    for number in range(20):
        place = tmp_path / "pets" / "train" / PETS[number % 2].replace("/", "")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(encode(number))
    data = load_data(config_for(tmp_path / "pets"))
    assert data.classes == ("acat", "dog")
    files = [*data.train.files, *data.val.files, *data.test.files]
    assert sorted(Path(file).read_bytes() for file in files) == sorted(encode(number) for number in range(20))


@needs_library
@pytest.mark.parametrize("own", ["@eaDir", "#recycle", "lost+found"])
def test_a_systems_folder_in_a_folder_of_the_library_is_no_class(tmp_path, capsys, own, write):
    for number in range(20):
        place = tmp_path / "pets" / "train" / ("cat", "dog", "cat", own)[number % 4]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(encode(number))
    data = load_data(config_for(tmp_path / "pets"))
    assert (data.classes, len(data.train) + len(data.val) + len(data.test)) == (("cat", "dog"), 15)
    assert "images of split train without a class are left out: 5 of 20" in capsys.readouterr().err


@needs_library
def test_columns_are_told_by_type_or_by_the_user(write):
    from datasets import ClassLabel, Value

    columns = make_split(20) | {"owner": [number % 4 for number in range(20)],
                                "town": [("Ulm", "Bonn", "Rom", "Bonn")[number % 4] for number in range(20)]}
    features = describe(*PETS) | {"owner": ClassLabel(names=["b", "a", "d", "c"]), "town": Value("string")}
    folder = write({"train": columns, "test": columns}, features)
    listed = r"picture \(Image\), kind \(ClassLabel\), owner \(ClassLabel\), town \(string\)"
    with pytest.raises(UserError, match=rf"expected one column of classes, of type ClassLabel, found kind, owner; the "
                       rf"columns are {listed}. Name the one to use: hf:{folder}#COLUMN"):
        load_data(config_for(folder))
    assert load_data(config_for(f"{folder}#kind")).classes == PETS
    assert load_data(config_for(f"{folder}#owner")).classes == ("b", "a", "d", "c")
    town = load_data(config_for(f"{folder}#picture,town"))
    assert town.classes == ("Bonn", "Rom", "Ulm")
    assert np.bincount(town.test.labels).tolist() == [10, 5, 5]
    with pytest.raises(UserError, match=rf"there is no column 'street'; there are {listed}"):
        load_data(config_for(f"{folder}#street"))


@needs_library
@pytest.mark.parametrize(("change", "message"), [
    (lambda columns, features: (columns.pop("kind"), features.pop("kind")),
     r"expected one column of classes, of type ClassLabel, found none; the columns are picture \(Image\)"),
    (lambda columns, features: (columns.pop("picture"), features.pop("picture")),
     r"expected one column of images, of type Image, found none; the columns are kind \(ClassLabel\)"),
    (lambda columns, features: columns.update(kind=[1] * 20), "all its images are of class 'a/cat'; expected two"),
    (lambda columns, features: columns.update(kind=[-1] * 20), "no image of its train split has a class"),
], ids=["no classes", "no images", "one class", "no labels"])
def test_a_data_set_that_does_not_fit(write, cache, change, message):
    columns, features = make_split(20), describe(*PETS)
    change(columns, features)
    folder = write({"train": columns}, features)
    with pytest.raises(UserError, match=message) as caught:
        load_data(config_for(folder))
    assert str(caught.value).startswith(f"dataset.name=hf:{folder}: ")
    assert "\n" not in str(caught.value)
    assert list((cache / "hf").iterdir()) == []


@needs_library
def test_splits_that_do_not_fit(write):
    folder = write({"test": make_split(4)}, describe(*PETS))
    with pytest.raises(UserError, match="it has the splits test; expected one that is called train"):
        load_data(config_for(folder))
    write({"train": make_split(4), "test": make_split(6, classes=3)}, describe("dog", "cat", "cow"))
    with pytest.raises(UserError, match="class 'cow' has images in its test split and none in its train split"):
        load_data(config_for(folder))


@needs_library
def test_what_cannot_be_loaded_is_one_line(write, tmp_path, monkeypatch):
    import datasets

    (tmp_path / "pets").mkdir()
    for source, message in ((f"{tmp_path}/absent", "absent is not a folder; name one, or a data set of the hub"),
                            (tmp_path / "pets", "it cannot be loaded (EmptyDatasetError: "),
                            ("a/b/c", "it cannot be loaded (FileNotFoundError: "),
                            ("no space", "it cannot be loaded (HFValidationError: ")):
        with pytest.raises(UserError) as caught:
            load_data(config_for(source))
        assert str(caught.value).startswith(f"dataset.name=hf:{source}: ")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    folder = write({"train": make_split(4)}, describe(*PETS))
    with pytest.raises(UserError, match=r"ValueError: BuilderConfig 'small' not found. Available: \['default'\]"):
        load_data(config_for(f"{folder}@small"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"\(ConnectionError: Couldn't reach .*\); check the name and the network"):
        load_data(config_for("owner/pets"))


@needs_library
def test_a_data_set_of_the_hub(write, server, tmp_path):
    folder = write({"train": make_split(20), "test": make_split(4)}, describe(*PETS))
    server.RequestHandlerClass = HubHandler
    server.files = {file.name: file.read_bytes() for file in folder.rglob("*.parquet")}
    script = ("import sys; from shared.data.loading import load_data; from shared.config.command import run_command\n"
              "def show(config):\n    data = load_data(config)\n"
              "    print(data.classes, len(data.train), len(data.test))\n"
              "run_command(show, 'lightning', '', '')")

    def load(name):  # in a process of its own, since the library reads the hub's address when it is imported
        return subprocess.run([sys.executable, "-c", script, f"dataset.name={name}", "train.batch_size=4"], text=True,
                              check=False, capture_output=True, env={**os.environ, "HF_ENDPOINT": server.address("")})
    assert load("hf:owner/pets").stdout == "('dog', 'a/cat') 18 4\n"
    server.files = {}
    assert load("hf:owner/pets").stdout == "('dog', 'a/cat') 18 4\n"  # from the cache
    absent = load("hf:owner/others")
    assert absent.returncode == 2
    assert absent.stderr.splitlines()[-1] == (
        "error: dataset.name=hf:owner/others: it cannot be loaded (DatasetNotFoundError: Dataset 'owner/others' "
        "doesn't exist on the Hub or cannot be accessed.); check the name and the network. A data set that is not "
        "public needs hf auth login")


def test_without_the_library_it_is_told_what_to_install(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"^dataset.name=hf:owner/pets: the package datasets is not installed; pip "
                       r"install 'datasets>=4' installs it, and so does make setup with hf among its EXTRAS$"):
        load_data(config_for("owner/pets"))
    assert list((cache / "hf").iterdir()) == []


@needs_library
def test_no_framework_is_imported(write):
    folder = write({"train": make_split(20)}, describe(*PETS))
    script = ("import sys; from shared.data.loading import load_data; from shared.config import parse_config; "
              f"load_data(parse_config(['dataset.name=hf:{folder}', 'train.batch_size=4'], '', '')); "
              "print(sorted({'torch', 'torchvision', 'tensorflow', 'keras', 'lightning', 'timm'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
