"""One request in TensorFlow Serving's JSON form gets the same answer from a SavedModel and from the server here.

TensorFlow Serving's own program is not to be had as a Python package. A stand-in does what it does with such a request:
base64 to bytes, the named signature of NAME/1/, and each output by its name.
"""

import asyncio
import base64
import importlib.util
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.timeout(300),
              pytest.mark.skipif(importlib.util.find_spec("litserve") is None, reason="needs the extra serve"),
              pytest.mark.parametrize("sibling", ["keras"], indirect=True)]


def answer_as_tensorflow_serving(folder, body):
    """https://www.tensorflow.org/tfx/serving/api_rest#predict_api, in its row format."""
    import tensorflow as tf

    request = json.loads(body)
    signature = tf.saved_model.load(str(folder / "1")).signatures[request["signature_name"]]
    (name,) = signature.structured_input_signature[1]
    values = [instance.get(name, instance) for instance in request["instances"]]
    found = signature(**{name: tf.constant([base64.b64decode(value["b64"]) for value in values])})
    rows = [{output: tensor[row].numpy().tolist() for output, tensor in found.items()} for row in range(len(values))]
    return {"predictions": rows}


def answer_as_the_server(model, steps, body):
    """What `shared.serve` answers, with `model` in place of its worker."""
    from starlette.requests import Request

    from shared.artifacts.serve.reading import Limits
    from shared.artifacts.serve.server import Endpoints

    endpoints = Endpoints(SimpleNamespace(classes=("a", "b", "c"), preprocessing=steps), "classifier",
                          Limits(bytes=10**6, pixels=10**4, requests=1))

    async def compute_answer(image):
        found = model(image[np.newaxis])
        return found["logits"].numpy()[0], found["probabilities"].numpy()[0]
    endpoints.compute_answer = compute_answer

    async def receive():
        return {"type": "http.request", "body": body}
    answer = asyncio.run(endpoints.answer_instances(Request({"type": "http", "headers": []}, receive)))
    return json.loads(answer.body)


def answer_both(sibling, folder, body, channels):
    """(what TensorFlow Serving answers, what the server here answers to the same request)."""
    import keras

    from keras_project.artifact import Server, build_served
    from keras_project.export import write_savedmodel
    from shared.data.preprocessing import Preprocessing

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, channels))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    steps = Preprocessing(8, channels, 0.9, "bicubic", True, (0.5,) * channels, (0.25,) * channels)
    served = build_served(model, steps, "uint8")
    write_savedmodel(Server(served, model, steps), folder / "1")
    return answer_as_tensorflow_serving(folder, body), answer_as_the_server(served, steps, body)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_client_moves_between_the_two(sibling, tmp_path, channels):
    instances = []
    for form, size in (("PNG", (20, 13)), ("JPEG", (9, 17))):
        pixels = np.random.default_rng(len(instances)).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(file := io.BytesIO(), form)
        instances.append({"b64": base64.b64encode(file.getvalue()).decode()})
    instances.append({"image_bytes": instances[0]})
    body = json.dumps({"signature_name": "serving_bytes", "instances": instances}).encode()
    theirs, ours = sibling.call(answer_both, tmp_path, body, channels)
    for answer in (theirs, ours):
        assert answer.keys() == {"predictions"}
        assert [set(row) for row in answer["predictions"]] == [{"logits", "probabilities"}] * 3
    for name, tolerance in (("logits", 0.05), ("probabilities", 0.01)):  # pixels may be a grey level apart
        both = [np.array([row[name] for row in answer["predictions"]]) for answer in (theirs, ours)]
        np.testing.assert_allclose(*both, rtol=0, atol=tolerance)
