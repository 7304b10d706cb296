"""A trained model as it leaves the project, with its preprocessing inside."""

import keras
import numpy as np
import tensorflow as tf

from shared.artifacts.formats import ENCODED, IMAGES, LOGITS, PROBABILITIES
from shared.data.preprocessing import Preprocessing

Outputs = dict[str, tf.Tensor]  # logits and probabilities, (n, K) float32


def build_served(model: keras.Model, preprocessing: Preprocessing, input: str) -> keras.Model:
    """A model from images (n, S, S, C) to logits and probabilities, (n, K) each.

    Images are uint8, or float32 that is already normalised: `input` is one of `shared.artifacts.description.INPUTS`.
    """
    images = keras.Input(model.input_shape[1:], dtype="uint8" if input == "uint8" else "float32", name=IMAGES)
    logits = model(build_normalisation(preprocessing)(images) if input == "uint8" else images)
    return keras.Model(images, {LOGITS: logits, PROBABILITIES: keras.layers.Softmax(name=PROBABILITIES)(logits)})


def build_normalisation(preprocessing: Preprocessing) -> keras.layers.Layer:
    """The layer that makes the model's input of pixels 0 to 255: (x / 255 - mean) / std."""
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    return keras.layers.Rescaling((1 / (255 * std)).tolist(), (-mean / std).tolist(), name="normalisation")


class Server(tf.Module):
    """What a SavedModel holds: the model's variables and two signatures, for images and for encoded images.

    Keras' own `model.export` keeps a second copy of the variables.
    """

    def __init__(self, served: keras.Model, model: keras.Model, preprocessing: Preprocessing):
        super().__init__()
        self.held = [variable.value for variable in served.variables]
        normalise, size = build_normalisation(preprocessing), preprocessing.image_size
        images = tf.TensorSpec(served.inputs[0].shape, served.inputs[0].dtype, name=IMAGES)

        def answer(images: tf.Tensor) -> Outputs:
            return served(images, training=False)

        def answer_encoded(image_bytes: tf.Tensor) -> Outputs:
            pixels = tf.map_fn(lambda content: decode(content, preprocessing), image_bytes,
                               fn_output_signature=tf.TensorSpec((size, size, preprocessing.channels), tf.float32))
            logits = model(normalise(pixels), training=False)
            return {LOGITS: logits, PROBABILITIES: tf.nn.softmax(logits)}

        self.answer = tf.function(answer, input_signature=[images])
        self.answer_encoded = tf.function(answer_encoded, input_signature=[tf.TensorSpec([None], tf.string, ENCODED)])


def decode(content: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """A JPEG, PNG or GIF file's content as `Preprocessing.scale` makes it: (S, S, C) float32 of values 0 to 255.

    EXIF orientation is not followed, and transparency is dropped.
    """
    # The operation reads PNG too; `decode_image` has no choice of the inverse cosine transform, and with another one
    # than Pillow's, pixels are up to three grey levels off.
    pixels = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
    if preprocessing.channels == 1:  # Pillow's integers
        luma = tf.reduce_sum(tf.cast(pixels, tf.int32) * [19595, 38470, 7471], axis=-1, keepdims=True)
        pixels = tf.bitwise.right_shift(luma + 32768, 16)
    shape = tf.cast(tf.shape(pixels)[:2], tf.float32)  # (2,), height and width
    side = preprocessing.center_crop * tf.reduce_min(shape)
    scale, start = preprocessing.image_size / side, (shape - side) / 2
    pixels = tf.cast(pixels, tf.float32)[None]
    for axis in (1, 0):  # columns first, as Pillow does, which rounds after each
        along = tf.one_hot(axis, 2)
        scaled = tf.where(along > 0, preprocessing.image_size, tf.shape(pixels)[1:3])
        pixels = tf.raw_ops.ScaleAndTranslate(
            images=pixels, size=scaled, scale=along * scale + 1 - along, translation=-along * start * scale,
            kernel_type={"bilinear": "triangle", "bicubic": "keyscubic"}[preprocessing.interpolation], antialias=True)
        if preprocessing.rounded:
            pixels = tf.clip_by_value(tf.floor(pixels + 0.5), 0, 255)
    return tf.ensure_shape(pixels[0], (preprocessing.image_size, preprocessing.image_size, preprocessing.channels))
