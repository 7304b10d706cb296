"""The images that an exported model is checked with and calibrated on: those of the run's own data set."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from shared.data.decode import open_rgb
from shared.data.images import Images
from shared.data.loading import Data, load_data
from shared.data.preprocessing import Preprocessing
from shared.data.sampling import FIXED_SEED, choose_stratified, draw_bits
from shared.errors import UserError
from shared.machine.console import say
from shared.runs.trained import Trained, describe_unfinished

RANDOM_IMAGES = 128
PICTURES = 16  # that a signature for encoded images is tried with


@dataclass(frozen=True)
class Samples:
    """Images (n, S, S, C) of values 0 to 255 and their labels (n,), which random images do not have; `source` says what
    they are. `recorded` are the logits (n, K) that the run itself has left of them; None where it has left none."""

    pixels: np.ndarray
    labels: np.ndarray | None
    source: str
    recorded: np.ndarray | None = None


def load_data_of(trained: Trained) -> Data | None:
    """The data set that the model was trained on; None, which is said, where it cannot be loaded.

    Raises:
        UserError: where it has other classes than the model.
    """
    try:
        data = load_data(trained.config)
    except UserError as error:
        say(f"the exports are checked with random images, since the data set cannot be loaded: {error}")
        return None
    if data.classes != trained.classes:
        first = next((place for place, pair in enumerate(zip(data.classes, trained.classes, strict=False))
                      if pair[0] != pair[1]), min(len(data.classes), len(trained.classes)))
        there, known = ("no class" if first >= len(names) else f"'{names[first]}'"
                        for names in (data.classes, trained.classes))
        raise UserError(f"the data set {trained.config.dataset.name} has other classes now than the model: as number "
                        f"{first} it has {there}, and the model {known}; restore the data set that the run was trained "
                        "on")
    return data


def read_pixels(images: Images, preprocessing: Preprocessing) -> np.ndarray:
    """All of `images` as evaluation sees them before normalisation, (n, S, S, C)."""
    return np.stack([preprocessing.scale(open_image(images, place)) for place in range(len(images))])


def open_image(images: Images, place: int) -> Image.Image:
    if images.files is not None:
        return open_rgb(images.files[place])
    pixels = images.pixels[place]
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def choose_places(images: Images, count: int) -> np.ndarray:
    """The places of `count` of the images, always the same, each class with its share; all where there are no more."""
    if count >= len(images):
        return np.arange(len(images))
    return choose_stratified(images.labels, count, FIXED_SEED)


def choose_test_samples(trained: Trained, data: Data | None, count: int) -> Samples:
    """Test images, or seeded random ones where there is no data set."""
    seen = trained.preprocessing
    if data is None:
        shape = RANDOM_IMAGES, seen.image_size, seen.image_size, seen.channels
        pixels = (draw_bits(int(np.prod(shape)), FIXED_SEED) >> np.uint64(56)).astype(np.uint8).reshape(shape)
        return Samples(pixels, None, f"{RANDOM_IMAGES} random images, since the data set could not be loaded")
    places = choose_places(data.test, count)
    chosen, said = data.test.take(places), f"{len(places):,} of {len(data.test):,} test images of {data.name}"
    return Samples(read_pixels(chosen, seen), chosen.labels, said, find_recorded(trained, data, places))


def find_recorded(trained: Trained, data: Data, places: np.ndarray) -> np.ndarray | None:
    """The logits (n, K) in the run's predictions.npz of the test images at `places`. Those of a run that goes on are
    of older weights."""
    path = (trained.folder or Path()) / "predictions.npz"
    if trained.folder is None or describe_unfinished(trained) or not path.is_file():
        return None
    with np.load(path) as file:
        logits = file["logits"][np.argsort(file["index"])]
        whole = np.array_equal(np.sort(file["index"]), np.arange(len(data.test)))
    return logits[places] if whole and logits.shape[1] == len(trained.classes) else None


def choose_calibration_pixels(trained: Trained, data: Data | None, count: int) -> np.ndarray:
    """Training images without augmentation, (n, S, S, C) of values 0 to 255. Raises `UserError` without a data set."""
    if data is None:
        raise UserError("--quantise int8 is calibrated on training images, and the data set cannot be loaded; restore "
                        "it, or use --quantise dynamic, which needs none")
    return read_pixels(data.train.take(choose_places(data.train, count)), trained.preprocessing)


def write_pictures(folder: Path, samples: Samples, preprocessing: Preprocessing) -> np.ndarray:
    """Write some of the images as PNG and JPEG files, each also larger, so that scaling is tried too.

    Returns:
        Their pixels as Pillow reads and scales them, (m, S, S, C), in the order of the files' names.
    """
    found = []
    for place, pixels in enumerate(samples.pixels[:PICTURES // 4]):
        image = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8).squeeze(-1 if pixels.shape[-1] == 1
                                                                                          else ()))
        larger = image.resize((round(1.7 * image.width), round(1.9 * image.height)), Image.Resampling.BICUBIC)
        for kind, scaled in (("as it is", image), ("larger", larger)):
            for ending in ("jpg", "png"):
                file = BytesIO()
                scaled.save(file, "JPEG" if ending == "jpg" else "PNG")
                number = f"{place:02}{'a' if kind == 'as it is' else 'b'}"
                (folder / f"{number}.{ending}").write_bytes(file.getvalue())
                found.append(preprocessing.scale(open_rgb(folder / f"{number}.{ending}")))
    return np.stack(found)
