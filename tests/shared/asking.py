"""A model without a framework to be asked about images: it knows a grey image by how bright it is."""

import io
import struct
import sys
import zlib

import numpy as np
from PIL import Image

from shared.artifacts.prediction.command import run_command
from shared.config import parse_config
from shared.weights.file import save_weights

CLASSES = tuple("0123456789")


def make_run(folder, **changes):
    """A run folder of the digits. Its weights fit no model, since none is built."""
    folder.mkdir()
    config = parse_config([f"{key}={value}" for key, value in changes.items()], "", "")
    save_weights(folder / "best.safetensors", {"weight": np.zeros(1, np.float32)}, config, CLASSES)
    return str(folder)


def make_image(path, digit, size=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (size, size), 20 * digit).save(path)
    return str(path)


def build_compute(trained):
    """Logits of images (n, S, S, C): minus the square of how far each class is from the mean brightness, over 400."""
    def compute(images):
        assert images.shape[1:] == (trained.image_size, trained.image_size, trained.channels)
        brightness = images.astype(np.float64).mean(axis=(1, 2, 3))
        return (-np.square(brightness[:, None] / 20 - np.arange(10))).astype(np.float32)
    return compute


# What the softmax of these logits gives an image in the middle of the classes: 1 / (1 + 2 e^-1 + 2 e^-4 + ...).
CERTAIN = 0.5641312
BESIDE = 0.2075323  # the same times e^-1


def write_bomb(path):
    """A PNG of a few bytes whose header promises 100,000 x 100,000 pixels."""
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))
                     + chunk(b"IEND", b""))


def ask(monkeypatch, capsys, *words, names=None, build=build_compute):
    """The exit status, the lines on standard output and those on standard error."""
    monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, words)])
    monkeypatch.setattr(sys, "stdin", names and io.TextIOWrapper(io.BytesIO(names), encoding="utf-8"))
    try:
        run_command(build, "keras", "Ask.")
    except SystemExit as left:
        said = capsys.readouterr()
        return left.code, said.out.splitlines(), said.err.splitlines()


if __name__ == "__main__":  # as a program of its own, for pipes and limits
    run_command(build_compute, "keras", "Ask.")
