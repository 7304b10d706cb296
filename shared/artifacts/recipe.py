"""The preprocessing in plain words."""

from shared.artifacts.formats import LOGITS, PROBABILITIES
from shared.data.preprocessing import Preprocessing


def write_recipe(seen: Preprocessing, input: str) -> list[str]:
    """The preprocessing in plain words, for whoever writes it in another language; the artifact does the rest."""
    size, grey = seen.image_size, seen.channels == 1
    side = "the shorter side" if seen.center_crop == 1 else f"{seen.center_crop:g} times the shorter side"
    reach = {"bilinear": "a triangle of half-width 1", "bicubic": "Keys' cubic with a = -0.5, of half-width 2"}
    steps = ["Decode the file to 8-bit RGB in sRGB, rows from top to bottom. Turn it as its EXIF orientation says, lay "
             "transparent parts over white, and keep the upper 8 of 16 bits."]
    if grey:
        steps.append("Make one grey channel: (19595 R + 38470 G + 7471 B + 32768) >> 16, in integers.")
    if seen.center_crop == 1:
        steps.append(f"If the image has {size} x {size} pixels, leave out the next two steps.")
    steps += [
        f"Take the central square whose side is {side}; its edges may lie between pixels.",
        f"Scale it to {size} x {size} as Pillow's Image.resize(box=...) does: for each output pixel, along columns "
        f"first and then along rows, average the input pixels around its centre, weighted by "
        f"{reach[seen.interpolation]} that is stretched by the factor of reduction where that is above 1, the weights "
        "divided by their sum."
        + (" Round to 8 bits after each direction." if seen.rounded else " Do not round in between.")]
    if input == "uint8":
        steps.append(f"Give the result as uint8, (n, {size}, {size}, {seen.channels}), rows first, channels last: the "
                     "model divides by 255 and normalises by itself."
                     + ("" if seen.rounded else " Round to the nearest whole number."))
    else:
        steps.append(f"For each channel: divide by 255, subtract {list(seen.mean)}, divide by {list(seen.std)}. Give "
                     f"the result as float32, (n, {size}, {size}, {seen.channels}), rows first, channels last.")
    steps.append(f"Output {LOGITS}, (n, K) float32, are the scores, and the place of the largest is that of the answer "
                 f"in `classes`; {PROBABILITIES} are their softmax, of which several may be equal in 8 bits.")
    return steps
