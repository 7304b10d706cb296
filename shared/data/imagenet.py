"""The 1,000 classes of ImageNet's challenge (arXiv:1409.0575), in the challenge's order."""

from functools import cache
from pathlib import Path


@cache
def read_synsets() -> dict[str, str]:
    """`{WordNet's number, such as n01440764: its first name}`. A name that two classes share ends in the number."""
    lines = Path(__file__).with_name("imagenet.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)
