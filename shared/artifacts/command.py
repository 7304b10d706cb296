"""The command line of both siblings' export.py."""

import argparse
import os
import signal
import sys
from collections.abc import Callable

from shared.artifacts.description import INPUTS
from shared.artifacts.formats import FORMATS, QUANTISATIONS, list_formats, require_packages
from shared.artifacts.making import Job
from shared.artifacts.samples import choose_calibration_pixels, choose_test_samples, load_data_of
from shared.config.schema import DebugConfig
from shared.errors import StoppedError, UserError
from shared.machine.arguments import Parser
from shared.machine.console import say
from shared.machine.ending import report_errors
from shared.runs.trained import describe_unfinished, read_trained


def run_export_command(work: Callable[[Job], object], sibling: str, file: str, purpose: str) -> None:
    """Read the command line of a sibling's export.py, load what it names, call `work`, and turn an error of the user's
    into one line and exit status 2."""
    def start() -> None:
        options = parse_arguments(sys.argv[1:], sibling, f"python {sibling}_project/{file}", purpose)
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # TensorFlow would check its models on a GPU, in less than fp32
        try:
            work(plan_job(options, sibling))
        except KeyboardInterrupt:
            raise StoppedError("stopped; the exports that were told are done, and older ones are as they were",
                               signal.SIGINT) from None
    report_errors(start)


def parse_arguments(arguments: list[str], sibling: str, command: str, purpose: str) -> argparse.Namespace:
    own = list_formats(sibling)
    parser = Parser(prog=command, description=purpose, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="a run folder or a .safetensors file, of either sibling")
    parser.add_argument("--to", metavar="FORMAT,...", help=f"{', '.join(own)}; default: all of them")
    parser.add_argument("--input", choices=INPUTS, default="uint8",
                        help="; ".join(f"{name}: {meaning}" for name, meaning in INPUTS.items()) + "; default: uint8")
    parser.add_argument("--quantise", choices=QUANTISATIONS, default="",
                        help="; ".join(f"{name}: {meaning}, of {' and '.join(list_formats(sibling, name)) or 'none'}"
                                       for name, meaning in QUANTISATIONS.items()))
    parser.add_argument("--calibration-images", metavar="N", type=int, default=512,
                        help="training images that --quantise int8 looks at; default: 512")
    parser.add_argument("--test-images", metavar="N", type=int, default=2000,
                        help="test images that every export is checked with; default: 2000")
    options = parser.parse_args(arguments)
    for name in ("calibration_images", "test_images"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)} is too few; name at least 1")
    options.to = choose_formats(options.to, options.quantise, sibling)
    return options


def choose_formats(named: str | None, quantisation: str, sibling: str) -> tuple[str, ...]:
    """The formats of --to. Raises `UserError` for one that the sibling cannot write, or not in this quantisation."""
    able = list_formats(sibling, quantisation)
    for name in dict.fromkeys(word for word in (named or "").split(",") if word):
        if name not in FORMATS:
            raise UserError(f"--to {name}: there is no such format; choose among {', '.join(FORMATS)}")
        makers = FORMATS[name].makers
        if sibling not in makers:
            raise UserError(f"{sibling}_project cannot export to {name}; {makers[0]}_project/export.py can, from the "
                            "same run")
        if name not in able:
            offered = ", ".join(FORMATS[name].quantisations) or "none"
            raise UserError(f"--quantise {quantisation} is not for {name}, which has {offered}; name another format or "
                            "leave it out")
    if not able:
        raise UserError(f"--quantise {quantisation} is for no format that {sibling}_project can write")
    return tuple(dict.fromkeys(word for word in (named or "").split(",") if word)) or tuple(able)


def plan_job(options: argparse.Namespace, sibling: str) -> Job:
    """What the options ask for, with the images that it takes.

    Raises:
        UserError: where a package is missing, there are no weights, the data set has other classes than the model, or
            calibration lacks its images.
    """
    for name in options.to:
        require_packages(name, sibling)
    trained = read_trained(options.run, ["hardware.accelerator=cpu", "hardware.precision=fp32"])
    # What training was watched with would be part of the exported graph, and so would what saves memory.
    trained.config.debug, trained.config.hardware.compile = DebugConfig(), False
    trained.config.model.gradient_checkpointing = False
    if said := describe_unfinished(trained):
        say(said)
    data = load_data_of(trained)
    calibration = choose_calibration_pixels(trained, data, options.calibration_images) \
        if options.quantise == "int8" else None
    return Job(trained, sibling, options.to, options.input, options.quantise,
               choose_test_samples(trained, data, options.test_images), calibration)
