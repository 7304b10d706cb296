"""dataset.cache: the same batches as without it, shared, and written anew where it has to be."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from shared.config import Config, validate_config
from shared.data.batches import EvalBatches, TrainBatches
from shared.data.cache import cache_images
from shared.data.decode import scale_image
from shared.data.kept import scale_array
from shared.data.loading import load_data
from shared.errors import UserError
from tests.shared.test_images import draw_scene

SETTINGS = {
    "padded": {"augment.crop": "pad", "augment.crop_padding": 3, "augment.crop_fill": "reflect"},
    "whole": {"augment.crop": "resized", "dataset.center_crop": 0.9, "dataset.interpolation": "bicubic"},
    "coarse": {"augment.crop": "resized", "dataset.decode": "coarse"},
    "padded and fast": {"augment.crop": "pad", "dataset.decode": "fast"},
    "overfit": {"augment.crop": "resized", "dataset.decode": "coarse", "debug.overfit_batches": 1},
}


@pytest.fixture
def root(tmp_path):
    """Twelve JPEGs of two classes, of several sizes, turned in every way."""
    for number in range(12):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 1 + number % 8
        Image.fromarray(draw_scene(90 + 17 * number, 131 - number)).save(path, quality=90, exif=exif)
    return tmp_path / "pictures"


def config_of(root, kind="disk", seed=0, **settings):
    config = Config(seed=seed)
    config.dataset.name, config.dataset.root, config.dataset.image_size = "image_folder", str(root), 16
    config.dataset.val_fraction = config.dataset.test_fraction = 0.25
    config.dataset.cache, config.train.batch_size, config.train.eval_batch_size = kind, 4, 3
    config.hardware.workers = 2
    for name, value in settings.items():
        section, key = name.split(".")
        setattr(getattr(config, section), key, value)
    validate_config(config)
    return config


def read_all(config, data):
    splits = [TrainBatches(config, data), *(EvalBatches(config, data, split) for split in (data.val, data.test))]
    return [batches[i] for batches in splits for i in range(min(len(batches), 8))]


def files_in(place):
    return sorted(place.glob("decoded/*.images"))


@pytest.mark.parametrize("kind", ["memory", "disk"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_batches_are_the_same_with_and_without_it(root, cache, kind, settings):
    config = config_of(root, kind, **settings)
    plain = load_data(config)
    data = cache_images(config, plain)
    assert data.train.kept is not None
    assert data.val.kept is not None
    for one, other in zip(read_all(config, plain), read_all(config, data), strict=True):
        assert list(one) == list(other)
        assert all(np.array_equal(one[name], other[name]) for name in one)


def keep(config):
    return cache_images(config, load_data(config))


def test_nothing_is_decoded_twice(root, cache, monkeypatch):
    config = config_of(root, **SETTINGS["whole"])
    keep(config)
    monkeypatch.setattr("shared.data.decode.open_header", None)
    read_all(config, keep(config))


def test_pixels_that_are_kept_are_scaled_as_a_whole_image_is():
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (61, 83, 3), np.uint8)
    image = Image.fromarray(pixels)
    for _ in range(300):
        height, width = draws.uniform(1, 61), draws.uniform(1, 83)
        box = draws.uniform(0, 61 - height), draws.uniform(0, 83 - width), height, width
        for size in (7, 24, 90):
            for interpolation in ("bilinear", "bicubic"):
                assert np.array_equal(scale_array(pixels, size, box, interpolation),
                                      scale_image(image, size, box, interpolation))


def test_one_file_serves_all_seeds_and_image_sizes(root, cache):
    for seed in range(3):
        keep(config_of(root, seed=seed, **SETTINGS["whole"]))
        keep(config_of(root, seed=seed, **SETTINGS["whole"], **{"dataset.image_size": 24}))
    assert len(files_in(cache)) == 1


def test_a_changed_file_is_decoded_anew_and_the_old_pixels_go(root, cache):
    config = config_of(root, **SETTINGS["whole"])
    before, [old] = keep(config), files_in(cache)
    changed = before.train.files[0]
    Image.open(changed).transpose(Image.Transpose.ROTATE_180).save(changed)
    after, [new] = keep(config), files_in(cache)
    assert new != old
    assert not np.array_equal(after.train.kept.get_pixels(0), before.train.kept.get_pixels(0))
    assert np.array_equal(after.train.kept.get_pixels(1), before.train.kept.get_pixels(1))


DAMAGE = {"cut short": lambda content: content[:-7], "empty": lambda content: b"",
          "of zeros": lambda content: bytes(len(content) - 2000) + content[-2000:],
          "with another table": lambda content: content[:-40] + bytes(8) + content[-32:],
          "of another kind": lambda content: content[:-32] + b"something" + content[-23:]}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_written_anew(root, cache, damage):
    config = config_of(root, **SETTINGS["whole"])
    keep(config)
    [file] = files_in(cache)
    whole = file.read_bytes()
    file.unlink()  # the test would change what is mapped
    file.write_bytes(damage(whole))
    read_all(config, keep(config))
    assert file.read_bytes() == whole


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_too_little_room_is_told_in_one_line_before_anything_is_decoded(root, cache, monkeypatch, place):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(2**40, 2**40, 100_000))
    monkeypatch.setattr("shared.data.cache.measure_free_memory", lambda: 100_000)
    monkeypatch.setattr("shared.data.cache.decode_kept", None)
    with pytest.raises(UserError, match=rf"^dataset.cache={place} needs 0.00 GiB and .* has 0.00 free; set dataset."
                                        "decode=coarse, .*leave (it|dataset.cache) out$"):
        keep(config_of(root, place, **SETTINGS["whole"]))
    assert list(cache.glob("decoded/*.images")) == []


def test_a_disk_that_fills_up_leaves_nothing(root, cache, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\).*TEMPLATE_CACHE"):
        keep(config_of(root))
    assert [file.name for file in (cache / "decoded").iterdir()] == [".lock"]


def test_an_image_that_cannot_be_read_is_named(root, cache):
    bad = root / "b" / "05.jpg"
    bad.write_bytes(bad.read_bytes()[:400])
    with pytest.raises(UserError, match=r"05.jpg: cannot be read as an image .*dataset.on_bad_image=skip"):
        keep(config_of(root))
    assert files_in(cache) == []
    keep(config_of(root, **{"dataset.on_bad_image": "skip"}))
    assert len(files_in(cache)) == 1


# Another process that decodes the images, slowly: it says so at the first one.
PROGRAM = """
import sys, time
from unittest import mock
from tests.shared.test_cache import SETTINGS, config_of, keep
from shared.data import cache
decode = cache.decode_kept
def slow(path, form):
    print("decoding", flush=True)
    time.sleep(0.3)
    return decode(path, form)
with mock.patch.object(cache, "decode_kept", slow):
    print(len(keep(config_of(sys.argv[1], **SETTINGS["whole"])).train.kept.table), flush=True)
"""


def start(root):
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def test_of_two_processes_one_decodes_and_the_other_waits(root, cache):
    both = [start(root) for _ in range(2)]
    ended = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert sum(out.count("decoding") for out, _ in ended) == 12
    assert sum("waiting for another process" in err for _, err in ended) <= 1
    assert len(files_in(cache)) == 1


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_one_that_is_cut_off_leaves_nothing_under_the_final_name(root, cache, signal_number):
    process = start(root)
    assert process.stdout.readline().startswith("decoding")  # by a reader, or by several at once
    time.sleep(0.2)
    process.send_signal(signal_number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert files_in(cache) == []
    assert len(list(cache.glob("decoded/*.unfinished"))) == (signal_number == signal.SIGKILL)
    keep(config_of(root))  # of another kind, and yet it clears up
    assert list(cache.glob("decoded/*.unfinished")) == []


def test_a_process_that_gets_batches_maps_the_file_itself(root, cache):
    config = config_of(root, **SETTINGS["whole"])
    batches = TrainBatches(config, keep(config))
    sent = pickle.dumps(batches)
    assert len(sent) < os.path.getsize(files_in(cache)[0]) / 4
    assert np.array_equal(pickle.loads(sent)[1]["image"], batches[1]["image"])
