"""The command line of export.py, the preprocessing in words, and what it is judged by."""

import signal

import numpy as np
import pytest
from PIL import Image

from shared.artifacts import command, formats
from shared.artifacts.checking import CRITERIA, Check, judge_check
from shared.artifacts.command import parse_arguments
from shared.artifacts.formats import FORMATS, QUANTISATIONS, require_packages
from shared.artifacts.recipe import write_recipe
from shared.config import parse_config
from shared.data.preprocessing import Preprocessing
from shared.errors import UserError
from shared.weights.file import save_weights


def parse(words, sibling="keras"):
    return parse_arguments(["RUN", *words.split()], sibling, "export.py", "")


def test_what_is_exported_by_default():
    assert parse("").to == ("onnx", "savedmodel", "litert", "keras")
    assert parse("", "lightning").to == ("onnx", "pt2")
    assert parse("--quantise fp16").to == ("litert",)
    assert parse("--to litert,onnx,litert").to == ("litert", "onnx")
    assert (parse("").input, parse("").quantise) == ("uint8", "")


@pytest.mark.parametrize(("sibling", "words", "line"), [
    ("lightning", "--to onnx,litert", "lightning_project cannot export to litert; keras_project/export.py can"),
    ("keras", "--to pt2", "keras_project cannot export to pt2; lightning_project/export.py can, from the same run"),
    ("keras", "--to tflite", "--to tflite: there is no such format; choose among onnx, pt2, savedmodel, litert, keras"),
    ("keras", "--to onnx --quantise fp16", "--quantise fp16 is not for onnx, which has int8, dynamic; name another"),
    ("keras", "--to keras --quantise int8", "--quantise int8 is not for keras, which has none"),
    ("lightning", "--quantise fp16", "--quantise fp16 is for no format that lightning_project can write"),
    ("keras", "--input rgb", "argument --input: invalid choice: 'rgb'"),
    ("keras", "--calibration-images 0", "--calibration-images 0 is too few"),
    ("keras", "--test-images x", "argument --test-images: invalid int value: 'x'; see --help"),
    ("keras", "--opset 9", "unrecognized arguments: --opset 9"),
])
def test_mistakes(sibling, words, line):
    with pytest.raises(UserError) as error:
        parse(words, sibling)
    assert line in str(error.value)


def test_a_missing_package_is_told_with_its_extra(monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else name)
    require_packages("onnx")
    require_packages("onnx", "lightning")
    with pytest.raises(UserError, match=r"tf2onnx is not installed here, .* onnx needs; .* -e '.\[export\]'"):
        require_packages("onnx", "keras")


def test_a_run_without_weights(tmp_path):
    options = parse("")
    options.run = str(tmp_path)
    with pytest.raises(UserError, match=r"best.safetensors does not exist; name a run folder that has finished"):
        command.plan_job(options, "keras")


def test_a_run_that_goes_on_is_told_and_saves_no_memory(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "require_packages", lambda name, maker: None)
    words = ["model.name=vit_tiny", "model.gradient_checkpointing=true", "hardware.compile=true"]
    config = parse_config(words, "train.py", "")
    save_weights(tmp_path / "best.safetensors", {"weight": np.zeros(1, np.float32)}, config, tuple("0123456789"))
    (tmp_path / "config.yaml").write_text("")  # which makes it a run's folder
    options = parse("--test-images 1")
    options.run = str(tmp_path)
    kept = command.plan_job(options, "keras").trained.config
    assert not (kept.model.gradient_checkpointing)
    assert not (kept.hardware.compile)
    assert f"the training in {tmp_path} has not ended: these are its best weights so far" in capsys.readouterr().err
    (tmp_path / "result.json").write_text("{}")
    command.plan_job(options, "keras")
    assert "has not ended" not in capsys.readouterr().err


def test_what_is_said_where_it_is_stopped(monkeypatch, capsys):
    monkeypatch.setattr(command.sys, "argv", ["export.py", "RUN"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(command, "plan_job", lambda *given: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as left:
        command.run_export_command(print, "keras", "export.py", "")
    assert left.value.code == 130
    said = capsys.readouterr().err
    assert said == "\nstopped; the exports that were told are done, and older ones are as they were\n"


def test_every_quantisation_has_a_criterion_and_a_format():
    offered = {name for known in FORMATS.values() for name in known.quantisations}
    assert offered == set(QUANTISATIONS) == set(CRITERIA) - {""}


RIGHT = {"images": 200, "source": "", "delta_logits": 1e-5, "logits_range": 10, "delta_probabilities": 1e-7,
         "delta_between_batches": 1e-6, "equal_answers": 200, "accuracy": 0.9, "accuracy_trained": 0.9,
         "bytes": 50_000_000, "bytes_of_weights": 45_000_000, "dtypes": ["float32"]}


@pytest.mark.parametrize(("quantisation", "found", "reasons"), [
    ("", {}, 0),
    ("", {"delta_logits": 0.0011}, 1),
    ("", {"delta_logits": float("nan")}, 1),
    ("", {"delta_between_batches": 0.0011}, 1),
    ("", {"delta_probabilities": 1e-4}, 1),
    ("", {"delta_of_encoded": 0.09, "delta_to_recorded": 0.9}, 0),
    ("", {"delta_of_encoded": 0.11}, 1),
    ("", {"delta_to_recorded": 1.1}, 1),
    ("int8", {"bytes": 14_000_000, "delta_to_recorded": float("nan")}, 1),
    ("", {"bytes": 56_000_000}, 1),
    ("", {"dtypes": ["bfloat16", "float16", "float32"]}, 1),
    ("fp16", {"dtypes": ["float16"], "bytes": 23_000_000, "delta_logits": 0.09}, 0),
    ("fp16", {"dtypes": ["float16"], "bytes": 23_000_000, "delta_logits": 0.11}, 1),
    ("int8", {"bytes": 14_000_000, "delta_logits": 0.3, "equal_answers": 190, "accuracy": 0.89}, 0),
    ("int8", {"bytes": 14_000_000, "delta_logits": 0.3, "equal_answers": 189}, 1),
    ("int8", {"bytes": 14_000_000, "delta_logits": 0.3, "accuracy": 0.885}, 1),
    ("int8", {"bytes": 14_000_000, "delta_logits": 0.3, "accuracy": None, "accuracy_trained": None}, 0),
    ("int8", {"delta_logits": 0.3}, 1),  # no smaller than fp32
    ("dynamic", {"bytes": 14_000_000, "delta_logits": 0.3, "delta_between_batches": 0.1}, 0),
    # Of ten images one is a tenth, and may change nevertheless.
    ("int8", {"bytes": 14_000_000, "images": 10, "equal_answers": 9, "accuracy": 0.8}, 0),
    ("int8", {"bytes": 14_000_000, "images": 10, "equal_answers": 8, "accuracy": 0.7}, 2),
])
def test_what_is_rejected(quantisation, found, reasons):
    check = Check(**(RIGHT | found))
    judge_check(check, CRITERIA[quantisation], quantisation)
    assert len(check.reasons) == reasons, check.reasons
    assert check.passed == (reasons == 0)


def test_the_recipe_says_what_this_preprocessing_does():
    colour = Preprocessing(224, 3, 0.875, "bicubic", True, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    steps = " ".join(write_recipe(colour, "float"))
    for words in ("0.875 times the shorter side", "224 x 224", "Keys' cubic", "Round to 8 bits after each direction",
                  "subtract [0.485, 0.456, 0.406], divide by [0.229, 0.224, 0.225]", "(n, 224, 224, 3)"):
        assert words in steps
    assert "grey" not in steps
    assert "leave out the next two" not in steps
    grey = " ".join(write_recipe(Preprocessing(8, 1, 1.0, "bilinear", False, (0.3,), (0.4,)), "uint8"))
    for words in ("one grey channel", "whose side is the shorter side", "leave out the next two", "triangle",
                  "Do not round in between", "divides by 255 and normalises by itself"):
        assert words in grey


def test_the_recipe_makes_grey_as_pillow_does():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    found = (pixels.astype(np.int64) @ [19595, 38470, 7471] + 32768) >> 16
    np.testing.assert_array_equal(found, np.asarray(Image.fromarray(pixels).convert("L")))
