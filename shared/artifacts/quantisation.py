"""Smaller ONNX files: weights, and activations too, in 8 bits.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from pathlib import Path

import numpy as np

from shared.artifacts.formats import IMAGES

BATCH = 32  # images of calibration at once


def quantise_onnx(file: Path, quantisation: str, images: np.ndarray | None) -> None:
    """Replace an ONNX file by its quantised form; `images` are the calibration's, as the model takes them."""
    from onnxruntime import quantization
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    whole = file.with_name(f"whole-{file.name}")
    # Folds BatchNorm into convolutions, which could not be quantised together otherwise.
    quantization.quant_pre_process(str(file), str(whole), skip_symbolic_shape=True)
    # Where a CPU lacks VNNI, products of unsigned activations and whole 8-bit weights overflow; those of 7 bits do not.
    if quantisation == "dynamic":
        quantization.quantize_dynamic(whole, file, per_channel=True, reduce_range=True)
    else:
        # The softmax of 8-bit logits in 8 bits would round most probabilities to 0.
        kinds = [kind for kind in {**QLinearOpsRegistry, **QDQRegistry} if kind != "Softmax"]
        # With signed activations ONNX Runtime 1.32 leaves each convolution before an addition in fp32 on x86.
        quantization.quantize_static(
            whole, file, Reader(images), quant_format=quantization.QuantFormat.QDQ, per_channel=True, reduce_range=True,
            activation_type=quantization.QuantType.QUInt8, op_types_to_quantize=kinds,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]})
    whole.unlink()


class Reader:
    """What ONNX Runtime's calibration takes its images from: a dictionary of inputs at a time, None at the end."""

    def __init__(self, images: np.ndarray):
        self.batches = iter([{IMAGES: images[first:first + BATCH]} for first in range(0, len(images), BATCH)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)
