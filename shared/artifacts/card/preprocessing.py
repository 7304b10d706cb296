"""How an image is prepared for the model, in words, and where timm's own transform does something else."""

from typing import Any

from shared.artifacts.card.timm_format import has_small_stem
from shared.runs.trained import Trained


def list_steps(trained: Trained, facts: dict[str, Any] | None) -> list[str]:
    """The steps, and a paragraph on timm's transform where the card's code uses it."""
    steps, size = trained.preprocessing, trained.image_size
    named = []
    if steps.channels == 1:
        named.append("Grey: 0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601).")
    share = "" if steps.center_crop == 1 else f"{steps.center_crop:g} of "
    named += [
        f"The central square whose side is {share}the shorter side.",
        f"Scaling to {size} x {size} pixels, {steps.interpolation}, antialiased as Pillow does it"
        + (", rounded to whole numbers." if steps.rounded else ", not rounded; an image of this size stays as it is."),
        f"Divided by 255, minus {list(steps.mean)}, divided by {list(steps.std)}, for each channel.",
    ]
    text = "\n".join(f"{number}. {step}" for number, step in enumerate(named, start=1))
    return [text, compare_with_timm(trained)] if facts or has_small_stem(trained) else [text]


def compare_with_timm(trained: Trained) -> str:
    """Where `timm.data.create_transform` gives the same pixels, and where not."""
    steps = trained.preprocessing
    sentences = []
    if steps.center_crop == 1:
        sentences.append("timm's transform gives the same for square images"
                         + ("." if steps.rounded else " of this size. It rounds others to whole numbers."))
        sentences.append("Of other images it scales the whole and cuts the square out afterwards, which moves the "
                         "square by up to a pixel.")
    else:
        sentences.append("timm's transform scales the whole image and cuts the square out afterwards, which moves the "
                         "square by up to a pixel.")
    sentences.append("It does not turn a photograph as its EXIF orientation asks: "
                     "`PIL.ImageOps.exif_transpose` does.")
    return " ".join(sentences)
