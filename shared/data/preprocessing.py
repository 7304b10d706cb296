"""What happens to an image file before a model sees it in evaluation, as facts that can be written down and followed.

Training and evaluation read their images through `batches.py`; a test compares the two.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from PIL import Image

from shared.config import Config
from shared.data.augment import build_resampling
from shared.data.decode import compute_central_box, convert_to_rgb, scale_image
from shared.data.definitions import find_definition


@dataclass(frozen=True)
class Preprocessing:
    """The steps from a decoded image to the model, in this order:

    1. grey, by the luma of ITU-R BT.601, where `channels` is 1;
    2. the central square whose side is `center_crop` of the shorter side;
    3. scaling to `image_size` pixels with `interpolation`, antialiased as Pillow does it, rounded to 8 bits where
       `rounded`; an image that already has this size stays as it is;
    4. division by 255, minus `mean`, divided by `std`, for each channel.
    """

    image_size: int
    channels: int
    center_crop: float
    interpolation: str
    rounded: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of_config(cls, config: Config) -> "Preprocessing":
        """That of an experiment. Raises `UserError` where its data set is not known here."""
        dataset = config.dataset
        definition = find_definition(dataset.name, dataset.variant)
        return cls(dataset.image_size or definition.image_size, definition.channels, dataset.center_crop,
                   # Images in memory are scaled by matrices, in floating point, and files by Pillow.
                   dataset.interpolation, not definition.reader, spread_over_channels(dataset.mean, definition.mean),
                   spread_over_channels(dataset.std, definition.std))

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Preprocessing":
        values = {item.name: content[item.name] for item in fields(cls)}
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def scale(self, image: Image.Image) -> np.ndarray:
        """Steps 1 to 3: (S, S, C), of values 0 to 255; uint8 where they are whole numbers, otherwise float32."""
        image = convert_to_rgb(image)
        if self.channels == 1:
            image = image.convert("L")
        box = compute_central_box(self.center_crop, image.height, image.width)
        if self.rounded or (image.size == (self.image_size,) * 2 and self.center_crop == 1):
            pixels = scale_image(image, self.image_size, box, self.interpolation)
            return pixels.reshape(self.image_size, self.image_size, self.channels)
        top, left, height, width = (np.array([value]) for value in box)
        rows = build_resampling(top, height, image.height, self.image_size, self.interpolation)[0]
        columns = build_resampling(left, width, image.width, self.image_size, self.interpolation)[0]
        pixels = np.asarray(image, np.float32).reshape(image.height, image.width, self.channels)
        return np.einsum("sh,tw,hwc->stc", rows, columns, pixels, optimize=True)

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Step 4 for images (..., C), as float32."""
        return ((pixels / np.float32(255) - np.float32(self.mean)) / np.float32(self.std)).astype(np.float32)


def spread_over_channels(given: list[float], own: tuple[float, ...]) -> tuple[float, ...]:
    """A value for each channel: `given`, or the data set's `own` where none is given. A grey image gets the mean of the
    values that are given for three colours."""
    if not given or len(given) == len(own):
        return tuple(given) or own
    return (sum(given) / len(given),) * len(own)
