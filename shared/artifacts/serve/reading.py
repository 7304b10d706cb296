"""What clients send, as pixels for the model. Nothing of it is trusted."""

import base64
import binascii
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from shared.artifacts.describing import ENCODED
from shared.data.decode import describe_error, list_formats
from shared.data.preprocessing import Preprocessing

MOST_IMAGES = 128  # in one request
SIGNATURE = "serving_bytes"  # of an exported SavedModel: the one that takes image files


class RefusedError(Exception):
    """A request that is not answered. The message is one line; `status` is the HTTP status, 400 to 499."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """The most that a request may hold, bytes as they are sent and pixels of all its images together; and the most
    requests that are answered at a time."""

    bytes: int
    pixels: int
    requests: int


def read_json(body: bytes) -> dict[str, Any]:
    """The object that a request holds. Raises `RefusedError`."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(400, "the request is not valid JSON") from None
    if not isinstance(content, dict):
        raise RefusedError(400, f"the request holds a JSON {type(content).__name__}; expected an object")
    return content


def read_image_field(content: dict[str, Any]) -> bytes:
    """The image file of {"image": BASE64}. Raises `RefusedError`."""
    if "image" not in content:
        raise RefusedError(400, 'expected {"image": "..."}, the image file in base64')
    return decode_base64(content["image"])


def read_instances(content: dict[str, Any]) -> list[bytes]:
    """The image files of a request of TensorFlow Serving's, in its row format:

    {"signature_name": "serving_bytes", "instances": [{"b64": BASE64}, {"image_bytes": {"b64": BASE64}}]}

    Source: https://www.tensorflow.org/tfx/serving/api_rest#predict_api

    Raises:
        RefusedError: where it is another one.
    """
    if (name := content.get("signature_name", SIGNATURE)) != SIGNATURE:
        raise RefusedError(400, f"signature_name is {str(name)[:40]!r}; here it is '{SIGNATURE}', which takes files")
    instances = content.get("instances")
    if not isinstance(instances, list) or not 0 < len(instances) <= MOST_IMAGES:
        raise RefusedError(400, f'expected {{"instances": [{{"b64": "..."}}, ...]}} with 1 to {MOST_IMAGES} images')
    files = []
    for instance in instances:
        if isinstance(instance, dict) and set(instance) == {ENCODED}:
            instance = instance[ENCODED]
        if not isinstance(instance, dict) or set(instance) != {"b64"}:
            raise RefusedError(400, f'instance {len(files)} is not {{"b64": "..."}}, an image file in base64')
        files.append(decode_base64(instance["b64"]))
    return files


def decode_base64(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise RefusedError(400, "an image is not valid base64") from None


def decode_images(files: list[bytes], preprocessing: Preprocessing, most_pixels: int) -> list[np.ndarray]:
    """The image files as evaluation prepares them, (S, S, C) each, of values 0 to 255.

    Raises:
        RefusedError: where one is no image, or they have more pixels together than `most_pixels`.
    """
    pixels = []
    for file in files:
        try:
            with Image.open(io.BytesIO(file), formats=list_formats()) as image:  # reads the header alone
                most_pixels -= image.width * image.height
                if most_pixels < 0:
                    raise RefusedError(413, f"the request has too many pixels, {image.width} x {image.height} in one "
                                            "image; scale images down before sending them")
                ImageOps.exif_transpose(image, in_place=True)
                pixels.append(preprocessing.scale(image))
        except RefusedError:
            raise
        except Exception as error:  # damaged files make decoders raise struct.error, zlib.error, IndexError and more
            raise explain_bad_image(file, error) from None
    return pixels


def explain_bad_image(file: bytes, error: Exception) -> RefusedError:
    if isinstance(error, Image.DecompressionBombError):
        return RefusedError(413, describe_error("", error))
    if isinstance(error, UnidentifiedImageError):
        reason = "no known image format" if file else "empty file"
    else:
        reason = describe_error("", error)
    return RefusedError(400, f"an image cannot be read ({reason})")
