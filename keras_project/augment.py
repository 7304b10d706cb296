"""Augmentation in TensorFlow, as `shared.data.augment` has drawn it, inside a `tf.data` pipeline."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from shared.config import AugmentConfig

Batch = dict[str, tf.Tensor]


class Augmentation:
    """Turns a batch of `shared.data.batches.Batches`, as tensors, into normalised images (n, S, S, C) of `dtype`."""

    def __init__(self, settings: AugmentConfig, mean: tuple[float, ...], std: tuple[float, ...], dtype: tf.DType):
        self.dtype = dtype
        self.mean, self.std = mean, std
        self.policy = build_policy(settings)

    def __call__(self, batch: Batch) -> tf.Tensor:
        images = batch["image"]  # (n, H, W, C), 0 to 255
        if "rows" in batch:
            images = resize(tf.cast(images, self.dtype), tf.cast(batch["rows"], self.dtype),
                            tf.cast(batch["columns"], self.dtype))
        if "flip" in batch:  # before the images take four times the memory
            images = mirror(images, batch["flip"])
        images = tf.cast(images, self.dtype)
        if "flip" in batch and self.policy:  # a batch that is to be augmented always has "flip"
            images = self.policy(images, batch["target"])
        images = self.normalise(images)
        if "partner" in batch:
            images = mix(images, batch["partner"], batch["box"], tf.cast(batch["opacity"], self.dtype))
        return images

    def normalise(self, images: tf.Tensor) -> tf.Tensor:
        """Images (n, S, S, C) of values 0 to 255, as rows (n, S, S * C), since TensorFlow takes six times as long for
        channels."""
        shape, width = tf.shape(images), images.shape[2]
        rows = tf.reshape(images, [shape[0], shape[1], width * images.shape[3]])
        mean, std = (tf.constant(np.tile(values, width), self.dtype) for values in (self.mean, self.std))
        return tf.ensure_shape(tf.reshape((rows / 255 - mean) / std, shape), images.shape)


def build_normalisation(mean: tuple[float, ...], std: tuple[float, ...],
                        dtype: tf.DType) -> Callable[[np.ndarray], tf.Tensor]:
    """A function of images (n, S, S, C) of values 0 to 255 that normalises them as evaluation does, to the last bit: in
    a graph, since TensorFlow computes a division there otherwise than outside."""
    augment = Augmentation(AugmentConfig(), mean, std, dtype)
    return tf.function(lambda images: augment({"image": images}), reduce_retracing=True)


def mirror(images: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """Images (n, S, S, C), left and right exchanged where `flip`, (n,) bool, says so."""
    which = tf.where(flip)  # (k, 1)
    return tf.tensor_scatter_nd_update(images, which, tf.reverse(tf.gather(images, which[:, 0]), axis=[2]))


def resize(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Resample images (n, H, W, C) to (n, S, S, C), by matrices rows (n or 1, S, H) and columns (n or 1, S, W)."""
    n = tf.shape(images)[0]
    rows = tf.broadcast_to(rows, [n, *rows.shape[1:]])
    columns = tf.broadcast_to(columns, [n, *columns.shape[1:]])
    images = tf.einsum("nsh,nhwc->nswc", rows, images)
    return tf.einsum("ntw,nswc->nstc", columns, images)


def mix(images: tf.Tensor, partner: tf.Tensor, box: tf.Tensor, opacity: tf.Tensor) -> tf.Tensor:
    """Mix each of images (n, S, S, C) with the one at its `partner`, (n,).

    Inside `box`, (n, 4), in pixels, the partner alone is seen. Outside it the image has weight `opacity`, (n,), and the
    partner the rest.
    """
    place = tf.range(images.shape[1])
    top, left, bottom, right = tf.unstack(box[:, :, None], axis=1)  # (n, 1) each
    inside = ((place >= top) & (place < bottom))[:, :, None] & ((place >= left) & (place < right))[:, None, :]
    weight = tf.where(inside, tf.zeros([], images.dtype), opacity[:, None, None])[..., None]  # (n, S, S, 1)
    return weight * images + (1 - weight) * tf.gather(images, partner)


def build_policy(settings: AugmentConfig) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None:
    """keras-cv's policy that the config names, for images (n, S, S, C), 0 to 255; None where it names none.

    Nothing else here uses keras-cv, whose last release is 0.9.0; KerasHub succeeds it.
    """
    if settings.policy == "none":
        return None
    import keras
    from keras_cv import layers

    policy_of_training = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # no mixed precision for pixels
    if settings.policy == "randaugment":
        layer = layers.RandAugment((0, 255), augmentations_per_image=2, magnitude=settings.policy_magnitude)
    elif settings.policy == "augmix":
        layer = layers.AugMix((0, 255), severity=settings.policy_magnitude)
    else:  # in every second image, a rectangle whose sides are up to the root of the largest area
        side = max(0.02, settings.policy_magnitude) ** 0.5
        layer = layers.RandomApply(layers.RandomCutout((0.1, side), (0.1, side)), rate=0.5)
    keras.config.set_dtype_policy(policy_of_training)

    def apply_policy(images: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        # The layers take batches as dictionaries, with float32 images in colour and float labels.
        images = tf.clip_by_value(tf.round(tf.cast(images, tf.float32)), 0, 255)
        colour = tf.image.grayscale_to_rgb(images) if images.shape[-1] == 1 else images
        augmented = tf.cast(layer({"images": colour, "labels": target}, training=True)["images"], images.dtype)
        return tf.ensure_shape(augmented[..., :images.shape[-1]], images.shape)

    return apply_policy
