"""Where in an image a model sees the class that it names: Grad-CAM (arXiv:1610.02391), for `shared.gallery`.

python -m keras_project.explain RUN GIVEN OUT; `shared.scores.gallery.maps` says what the files hold.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from keras_project.executor import require_tensorflow
from keras_project.models import build_model, find_entry, load_weights, neutral_shapes
from keras_project.runtime import build_runtime
from shared.errors import UserError
from shared.machine.ending import report_errors
from shared.models import ModelEntry
from shared.runs.trained import Trained
from shared.scores.gallery.maps import BATCH, SMALLEST, answer_request

# What the names of the layers begin with that make up the stages of our own models, from the first to the last, after
# which Grad-CAM may be taken. Of other models it is any layer.
STAGES = {"resnet": ("layer1.", "layer2.", "layer3.", "layer4."),
          "efficientnet": (*(f"blocks.{number}." for number in range(7)), "bn2.act"),
          "airbench": ("act", "groups.0.", "groups.1.", "groups.2.")}
CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)


def explain(model: keras.Model, entry: ModelEntry, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The Grad-CAM of each image for its class, (n, h, w) float32, 0 or above, in the units of the logit.

    It is taken after the last stage of a ResNet and after the head convolution's activation of an EfficientNet, or
    after the last stage before that whose side is at least SMALLEST. In a ViT it is taken of the patches' tokens after
    the first norm of the last block, since beyond this block's attention only the class token counts.

    Args:
        model: of images (n, S, S, C) to logits (n, K). It has to be functional or sequential, without gradient
            checkpointing.
        entry: what is known about the model.
        images: (n, S, S, C), normalised as in evaluation.
        classes: (n,) int64.

    Raises:
        UserError: where the model has no such feature map.
    """
    layer = find_feature_map(model, entry)
    maps = []
    for first in range(0, len(images), BATCH):
        features, weights = weigh_channels(model, layer, images[first:first + BATCH], classes[first:first + BATCH])
        maps.append(tf.nn.relu(tf.einsum("nhwc,nc->nhw", features, weights)).numpy().astype(np.float32))
    return np.concatenate(maps)


def weigh_channels(model: keras.Model, layer: keras.layers.Layer, images: np.ndarray,
                   labels: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """The feature maps (n, h, w, c) that leave `layer`, and the mean over each of them of the gradient of its image's
    logit for the label, (n, c)."""
    with tf.GradientTape() as tape:
        features, logits = keras.Model(model.inputs[0], [layer.output, *model.outputs])(images, training=False)
        # In evaluation mode, no logit depends on another image.
        chosen = tf.reduce_sum(tf.gather(logits, labels, axis=1, batch_dims=1))
    gradient = tape.gradient(chosen, features)
    if len(features.shape) == 3:  # tokens (n, 1 + T, D), of which the first is the class token
        features, gradient = (arrange_tokens(tokens[:, 1:]) for tokens in (features, gradient))
    return features, tf.reduce_mean(gradient, axis=(1, 2))


def arrange_tokens(tokens: tf.Tensor) -> tf.Tensor:
    """One token per patch, row by row, as feature maps: (n, T, D) to (n, h, w, D)."""
    side = round(tokens.shape[1] ** 0.5)
    return tf.reshape(tokens, (-1, side, side, tokens.shape[2]))


def find_feature_map(model: keras.Model, entry: ModelEntry) -> keras.layers.Layer:
    """The layer after which Grad-CAM is taken. Raises `UserError` where there is none."""
    if not getattr(model, "inputs", None):
        raise UserError("it is no functional model, so that what leaves its layers cannot be asked for")
    if entry.builder == "vit":
        return [layer for layer in model.layers if layer.name.endswith(".norm1")][-1]
    # In the order in which they are computed.
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    if entry.builder in STAGES:
        stages = ([layer for layer in layers if layer.name.startswith(stage)] for stage in STAGES[entry.builder])
        layers = [stage[-1] for stage in stages if stage]
    found = [layer for layer in layers if is_large(layer)]
    if not found:
        raise UserError(f"no feature map of it has {SMALLEST} pixels on a side or more, for images of "
                        f"{model.input_shape[1]} pixels")
    if entry.builder not in STAGES:
        refuse_late_layers(layers)
    return found[-1]


def refuse_late_layers(layers: list[keras.layers.Layer]) -> None:
    """Raise `UserError` where most of the `layers` that have variables come after the last convolution, as in a
    transformer, where tensors (n, h, h, c) may be attention."""
    trained = [layer for layer in layers if layer.variables]
    until = max((place for place, layer in enumerate(trained, start=1) if isinstance(layer, CONVOLUTIONS)), default=0)
    if 2 * until < len(trained):
        raise UserError(f"{len(trained) - until} of its {len(trained)} layers come after the last convolution; "
                        "Grad-CAM is for models that stay convolutional")


def is_large(layer: keras.layers.Layer) -> bool:
    """Whether feature maps (n, h, w, c) of a square image, of SMALLEST pixels or more, leave `layer`."""
    shape = getattr(layer.output, "shape", ())  # a list of several outputs has none
    return len(shape) == 4 and shape[1] == shape[2] is not None and shape[1] >= SMALLEST


def explain_trained(trained: Trained, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """`explain` for the weights of a run."""
    require_tensorflow("Grad-CAM")
    build_runtime(trained.config)
    model = build_model(trained.config, trained)
    load_weights(model, trained.read_weights(neutral_shapes(model)))
    return explain(model, find_entry(trained.config.model.name), images, classes)


if __name__ == "__main__":
    report_errors(lambda: answer_request(explain_trained, sys.argv[1:]))
