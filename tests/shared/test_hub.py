"""Data sets that the library `datasets` loads, here from folders, since tests reach no network."""

import hashlib
import io
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.batches.data import load_data
from shared.config import Config, parse_config
from shared.config.rules import validate_config
from shared.datasets import download, hub
from shared.datasets.definition import HubSource
from shared.datasets.definitions import find_definition
from shared.errors import UserError

needs_library = pytest.mark.skipif(find_spec("datasets") is None,
                                   reason="the package datasets is not installed; the extra hf brings it")


def config_for(source, **dataset):
    config = Config()
    config.train.batch_size = 4
    config.dataset.name = f"hf:{source}"
    for name, value in dataset.items():
        setattr(config.dataset, name, value)
    validate_config(config)
    return config


def encode(number, kind="PNG"):
    packed = io.BytesIO()
    Image.new("RGB", (6, 4), (number, 0, 0)).save(packed, kind)
    return packed.getvalue()


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


def make_split(count, classes=2, first=0):
    """Pictures of different colours, of each class in turn."""
    numbers = range(first, first + count)
    return {"picture": [{"bytes": encode(number), "path": None} for number in numbers],
            "kind": [number % classes for number in numbers]}


def describe(*names):
    from datasets import ClassLabel, Image

    return {"picture": Image(), "kind": ClassLabel(names=list(names))}


PETS = "dog", "a/cat"  # not in alphabetical order, and one is no name for a folder


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


def hash_bytes(content):
    return hashlib.sha1(content).hexdigest()


class HubHandler(BaseHTTPRequestHandler):
    """What the hub answers for the data set owner/pets, whose Parquet files are the server's `files`."""

    def answer(self):
        path, revision = self.path.partition("?")[0], "a" * 40
        name = path.rpartition("/")[2]
        entries = [{"type": "file", "path": f"data/{file}", "size": len(content), "oid": hash_bytes(content)}
                   for file, content in self.server.files.items()]
        headers, status, content = {"X-Repo-Commit": revision}, 200, b""
        if path.startswith("/datasets/owner/pets/resolve/") and name in self.server.files:
            content = self.server.files[name]
            headers["ETag"] = f'"{hash_bytes(content)}"'
        elif path.startswith("/datasets/owner/pets/resolve/"):
            status, headers["X-Error-Code"] = 404, "EntryNotFound"
        elif path.startswith("/api/datasets/owner/pets/tree/"):
            top = [{"type": "directory", "path": "data", "oid": ""}]
            content = json.dumps(entries if name == "data" else top).encode()
        elif path.startswith("/api/datasets/owner/pets"):
            content = json.dumps({"id": "owner/pets", "sha": revision, "siblings": [
                {"rfilename": entry["path"]} for entry in entries]}).encode()
        else:
            status, headers["X-Error-Code"] = 401, "RepoNotFound"
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_GET = do_HEAD = answer  # noqa: N815

    def log_message(self, *_):
        pass


@needs_library
def test_a_data_set_of_the_hub(write, server, tmp_path):
    folder = write({"train": make_split(20), "test": make_split(4)}, describe(*PETS))
    server.RequestHandlerClass = HubHandler
    server.files = {file.name: file.read_bytes() for file in folder.rglob("*.parquet")}
    script = ("import sys; from shared.batches.data import load_data; from shared.config.command import run_command\n"
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
    script = ("import sys; from shared.batches.data import load_data; from shared.config import parse_config; "
              f"load_data(parse_config(['dataset.name=hf:{folder}', 'train.batch_size=4'], '', '')); "
              "print(sorted({'torch', 'torchvision', 'tensorflow', 'keras', 'lightning', 'timm'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(("name", "source"), [
    ("hf:digits", ("digits",)), ("hf:owner/pets", ("owner/pets",)), ("hf:owner/pets@small", ("owner/pets", "small")),
    ("hf:owner/pets#kind", ("owner/pets", "", ("kind",))),
    ("hf:owner/pets@small#picture,kind", ("owner/pets", "small", ("picture", "kind"))),
])
def test_what_a_name_means(name, source):
    found = find_definition(name, "160")
    assert found.hub == HubSource(name, *source)
    assert (found.needs_root, found.has_files) == (False, False)
    place, = found.folders
    assert place.startswith("hf/")
    assert place.count("/") == 1


def test_a_folder_of_any_name(tmp_path):
    odd = tmp_path / "pets@home#1"
    odd.mkdir()
    assert find_definition(f"hf:{odd}", "160").hub == HubSource(f"hf:{odd}", str(odd))


@pytest.mark.parametrize("name", ["dog", "a/cat", "100%", ".hidden", "", "CON", "..", 'a "b" <c>: d|e?*\\', "katze_ü",
                                  "3_x"])
def test_names_of_classes_survive_as_names_of_folders(name, tmp_path):
    place = tmp_path / f"07_{hub.encode_name(name)}"
    place.mkdir()
    assert hub.decode_class(place.name) == name


def test_the_config_accepts_and_refuses(tmp_path):
    config = parse_config(["dataset.name=hf:owner/pets@small#kind", "experiment=''"], "", "")
    assert config.group == "hf-owner-pets@small#kind_resnet18"  # one folder, not two
    for name, facts, message in (("", {}, r"dataset.name='hf:' is not one of digits, .*, hf:NAME"),
                                 ("owner/pets", {"root": str(tmp_path)}, "is kept in the cache folder; leave it out"),
                                 ("owner/pets", {"variant": "320"}, "dataset.variant=320 is not for dataset.name=hf")):
        with pytest.raises(UserError, match=message):
            config_for(name, **facts)


def test_the_folder_of_a_hub_name_never_changes():
    """People's caches hold it; another name would load everything once more."""
    assert find_definition("hf:owner/pets@small#kind", "160").folders == ("hf/owner--pets@small#kind",)
