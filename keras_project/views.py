"""Test-time augmentation, `evaluate.tta`: the mean of a model's logits over several views of an image."""

import keras
from keras import layers, ops

from keras_project.executor import Tensor, executor
from shared.data.views import VIEWS


@keras.saving.register_keras_serializable("keras_project")
class ShowView(layers.Layer):
    """A view of images (n, S, S, C), of the same shape, see `shared.data.views.View`."""

    def __init__(self, mirrored: bool, shift: int, **kwargs):
        super().__init__(**kwargs)
        self.mirrored, self.shift = mirrored, shift

    def call(self, images: Tensor) -> Tensor:
        if self.mirrored:
            images = ops.flip(images, axis=2)
        if self.shift:
            size, pad = images.shape[1], abs(self.shift)
            first = pad - self.shift
            images = ops.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
            images = images[:, first:first + size, first:first + size]
        return images

    def get_config(self) -> dict:
        return {**super().get_config(), "mirrored": self.mirrored, "shift": self.shift}


def average_views(model: keras.Model, tta: str) -> keras.Model:
    """A model that gives the weighted mean of `model`'s logits of all views of images (n, S, S, C), (n, K); `tta` is
    `evaluate.tta`. It has the weights of `model`, and is `model` itself where there is nothing to average."""
    views = VIEWS[tta]
    if len(views) == 1:
        return model
    dtype = model.outputs[0].dtype  # also under mixed precision
    with executor.scope_of(model):
        images = keras.Input(model.input_shape[1:], dtype=model.inputs[0].dtype, name="images")
        shown = [ShowView(view.mirrored, view.shift, dtype=dtype)(images) for view in views]
        logits = [layers.Rescaling(view.weight, dtype=dtype)(model(image))
                  for view, image in zip(views, shown, strict=True)]
        return keras.Model(images, layers.Add(name="logits", dtype=dtype)(logits))
