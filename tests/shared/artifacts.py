"""A trained classifier of the digits in plain NumPy, and ONNX files of it: right ones and wrong ones."""

import numpy as np

from shared.artifacts.making import Job
from shared.artifacts.samples import choose_calibration_pixels, choose_test_samples, load_data_of
from shared.config import parse_config
from shared.runs.trained import read_trained
from shared.weights.file import save_weights

WIDTH = 64  # pixels of a digit


def write_run(folder):
    """A folder with the weights of a linear classifier (ridge regression), whose path is returned."""
    folder.mkdir()
    config = parse_config([], "test", "")
    classes = tuple("0123456789")
    save_weights(folder / "best.safetensors", {"weight": np.zeros((10, WIDTH), np.float32)}, config, classes)
    trained = read_trained(str(folder))
    train = load_data_of(trained).train
    inputs = trained.preprocessing.normalise(train.pixels).reshape(-1, WIDTH)
    weight = np.linalg.solve(inputs.T @ inputs + 50 * np.eye(WIDTH), inputs.T @ (10 * np.eye(10)[train.labels]))
    save_weights(folder / "best.safetensors", {"weight": weight.T.astype(np.float32)}, config, classes)
    return folder


def plan(folder, quantisation="", input="uint8", with_data=True):
    trained = read_trained(str(folder))
    data = load_data_of(trained) if with_data else None
    calibration = choose_calibration_pixels(trained, data, 64) if quantisation == "int8" else None
    return Job(trained, "keras", ("onnx",), input, quantisation, choose_test_samples(trained, data, 100), calibration)


def build_answer(job):
    weight = job.trained.read_weights({"weight": (10, WIDTH)})["weight"]
    return lambda images: images.reshape(-1, WIDTH) @ weight.T


def write_onnx(file, job, batch="batch", shift=0.0, beside=False, ballast=0, half=False):
    """The classifier; wrong in one way where an argument says so."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = job.trained.read_weights({"weight": (10, WIDTH)})["weight"].T + np.float32(shift)
    seen = job.trained.preprocessing
    constants = {"scale": np.float32(1 / (255 * seen.std[0])), "mean": np.float32(255 * seen.mean[0]),
                 "weight": weight, "shape": np.array([-1, WIDTH]), "ballast": np.zeros(ballast, np.uint8)}
    nodes = [("Cast", ["images"], "floats", {"to": TensorProto.FLOAT}), ("Sub", ["floats", "mean"], "centred", {}),
             ("Mul", ["centred", "scale"], "normal", {})] if job.input == "uint8" else \
        [("Identity", ["images"], "normal", {})]
    nodes.append(("Reshape", ["normal", "shape"], "flat", {}))
    if beside:  # as a BatchNorm in training does
        nodes += [("ReduceMean", ["flat"], "average", {"axes": [0]}), ("Sub", ["flat", "average"], "rest", {})]
    last = "rest" if beside else "flat"
    if half:
        nodes += [("Cast", [last], "half", {"to": TensorProto.BFLOAT16}), ("Cast", ["half"], "whole", {"to": 1})]
        last = "whole"
    nodes += [("MatMul", [last, "weight"], "logits", {}), ("Softmax", ["logits"], "probabilities", {"axis": 1})]
    kind = TensorProto.UINT8 if job.input == "uint8" else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(name, given, [made], **more) for name, given, made, more in nodes], "linear",
        [helper.make_tensor_value_info("images", kind, [batch, 8, 8, 1])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 10]) for name in ("logits", "probabilities")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(file))
