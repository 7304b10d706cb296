"""The 1,000 classes of ImageNet's challenge (arXiv:1409.0575): WordNet's numbers and first names, in their order."""

from functools import cache
from pathlib import Path


@cache
def read_synsets() -> dict[str, str]:
    """`{number, such as n01440764: name}`. Names that two classes share carry the number."""
    lines = Path(__file__).with_name("imagenet.txt").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines)
