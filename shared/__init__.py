"""What both siblings share: the experiment as a value, free of any framework. docs/proof.md says how it is used."""

from pathlib import Path

# `python -m shared.serve` finds the file serve.py of this folder: what people type is short, wherever its code stands.
__path__.append(str(Path(__file__).with_name("commands")))
