"""How many multiply-adds a trained model takes for an image: python -m keras_project.multiply_adds RUN, for
`shared.study`.

What counts is convolutions and products of matrices, attention's among them, in a forward pass. Everything else, such
as normalisation and activations, is left out, as in published figures.
"""

import math
import sys

import keras
import tensorflow as tf

from keras_project.models import build_model
from shared.machine.ending import report_errors
from shared.runs.trained import read_trained


def count_multiply_adds(model: keras.Model, channels: int, image_size: int) -> int:
    """The multiply-adds of one image (1, S, S, C); nothing is computed, since they are read from the graph."""
    image = tf.TensorSpec((1, image_size, image_size, channels))
    graph = tf.function(lambda images: model(images, training=False)).get_concrete_function(image).graph
    return sum(count_of_operation(operation) for operation in graph.get_operations())


def count_of_operation(operation: tf.Operation) -> int:
    """Its multiply-adds; 0 where it is neither a convolution nor a product of matrices."""
    shapes = [tensor.shape for tensor in operation.inputs]
    match operation.type:
        case "Conv2D":  # a kernel is (k, k, in / groups, out)
            terms = math.prod(shapes[1][:-1])
        case "DepthwiseConv2dNative":  # (k, k, in, multiplier)
            terms = math.prod(shapes[1][:2])
        case "MatMul":
            terms = shapes[0][0 if operation.get_attr("transpose_a") else 1]
        case "BatchMatMulV2":
            terms = shapes[0][-2 if operation.get_attr("adj_x") else -1]
        case "Einsum":  # "aecd,abcd->acbe": a term for each value of the letters that the result has not
            before, after = operation.get_attr("equation").decode().split("->")
            sizes = {letter: size for letters, shape in zip(before.split(","), shapes, strict=True)
                     for letter, size in zip(letters, shape, strict=True)}
            terms = math.prod(size for letter, size in sizes.items() if letter not in after)
        case _:
            return 0
    return terms * operation.outputs[0].shape.num_elements()


def main() -> None:
    trained = read_trained(sys.argv[1], ["hardware.accelerator=cpu", "hardware.precision=fp32"])
    print(count_multiply_adds(build_model(trained.config, trained), trained.channels, trained.image_size))


if __name__ == "__main__":
    report_errors(main)
