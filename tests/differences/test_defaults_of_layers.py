"""Where the defaults of convolutions, batch normalisation and initial weights differ."""

import numpy as np

from tests.conftest import needs_both
from tests.differences.measuring import apart, farthest

# Convolution


@needs_both
def test_padding_of_strided_convolution(torch, keras, rng, recorded):
    images, kernel = rng.standard_normal((2, 8, 8, 4)), rng.standard_normal((3, 3, 4, 5))
    ours, theirs = torch.strided_convolution(images, kernel)["stock"], keras.strided_convolution(images, kernel)
    recorded(apart(theirs["stock"], ours, np.abs(ours).max()), apart(theirs["ours"], ours, np.abs(ours).max()))


@needs_both
def test_padding_of_strided_convolution_of_odd_size(torch, keras, rng, recorded):
    images, kernel = rng.standard_normal((2, 7, 7, 4)), rng.standard_normal((3, 3, 4, 5))
    ours, theirs = torch.strided_convolution(images, kernel)["stock"], keras.strided_convolution(images, kernel)
    recorded(apart(theirs["stock"], ours, np.abs(ours).max()), apart(theirs["ours"], ours, np.abs(ours).max()))


# Batch normalisation


def norm_arguments(rng: np.random.Generator, dtype: str) -> list[np.ndarray]:
    """16 values for each of 3 channels, which is few enough for n - 1 to show, and what batch_norm() takes besides."""
    arrays = (3 + 2 * rng.standard_normal((4, 2, 2, 3)), rng.uniform(0.5, 2, 3), rng.standard_normal(3),
              rng.standard_normal((4, 2, 2, 3)))
    return [array.astype(dtype) for array in arrays]


@needs_both
def test_batch_norm_momentum(torch, keras, rng, recorded):
    arguments = norm_arguments(rng, "float64")
    batch_mean = arguments[0].mean(axis=(0, 1, 2))
    ours, theirs = torch.batch_norm(*arguments)["stock"], keras.batch_norm(*arguments)
    recorded(apart(ours["mean"], theirs["stock"]["mean"], batch_mean),
             apart(ours["mean"], theirs["ours"]["mean"], batch_mean))


@needs_both
def test_batch_norm_eps(torch, keras, rng, recorded):
    images = rng.standard_normal((4, 2, 2, 3))
    ours, theirs = (framework.batch_norm_evaluation(images, 0.01) for framework in (torch, keras))
    recorded(apart(theirs["stock"], ours["stock"], ours["stock"]), apart(theirs["ours"], ours["stock"], ours["stock"]))


@needs_both
def test_batch_norm_running_variance(torch, keras, rng, recorded):
    arguments = norm_arguments(rng, "float64")
    ours, theirs = torch.batch_norm(*arguments)["stock"], keras.batch_norm(*arguments)
    moved = ours["variance"] - 0.9  # from an initial 1
    recorded(apart(theirs["stock with PyTorch's settings"]["variance"], ours["variance"], moved),
             apart(theirs["ours"]["variance"], ours["variance"], moved))


@needs_both
def test_batch_norm_float64(torch, keras, rng, recorded):
    """The path that is written out: outputs, gradients and running statistics."""
    arguments = norm_arguments(rng, "float64")
    ours, theirs = torch.batch_norm(*arguments)["stock"], keras.batch_norm(*arguments)
    recorded(farthest(ours, theirs["stock with PyTorch's settings"]), farthest(ours, theirs["ours"]))


@needs_both
def test_batch_norm_float32(torch, keras, rng, recorded):
    """The path through TensorFlow's fused kernel."""
    arguments = norm_arguments(rng, "float32")
    ours, theirs = torch.batch_norm(*arguments)["stock"], keras.batch_norm(*arguments)
    recorded(farthest(ours, theirs["stock with PyTorch's settings"]), farthest(ours, theirs["ours"]))


@needs_both
def test_batch_norm_paths_agree(keras, rng, recorded):
    arguments = norm_arguments(rng, "float32")
    fused, written_out = keras.batch_norm(*arguments), keras.batch_norm(*(array.astype("float64")
                                                                          for array in arguments))
    stock = "stock with PyTorch's settings"
    recorded(farthest(written_out[stock], fused[stock]), farthest(written_out["ours"], fused["ours"]))


@needs_both
def test_batch_norm_fused_eps(torch, keras, rng, recorded):
    """Some releases of TensorFlow raise a fused eps below 1.001e-5; a tiny variance shows it."""
    images = rng.standard_normal((4, 2, 2, 3)).astype(np.float32)
    ours, theirs = (framework.batch_norm_evaluation(images, 1e-6) for framework in (torch, keras))
    recorded(apart(theirs["stock"], ours["stock"], ours["stock"]), apart(theirs["ours"], ours["stock"], ours["stock"]))


# Initial weights


@needs_both
def test_initial_deviation_of_dense(torch, keras, recorded):
    recorded(keras.initial_deviations()["dense"] / torch.initial_deviations()["dense"])


@needs_both
def test_initial_deviation_of_convolution(torch, keras, recorded):
    recorded(keras.initial_deviations()["convolution"] / torch.initial_deviations()["convolution"])


@needs_both
def test_initial_bias(torch, keras, recorded):
    assert keras.initial_deviations()["bias"] == 0
    recorded(torch.initial_deviations()["bias"])
