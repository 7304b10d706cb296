"""Show what a run gets wrong, and where its model looked: a page of pictures, without network and script.

    python -m shared.gallery RUN            the most confident mistakes, and the least sure hits
    python -m shared.gallery RUN RUN        also the images on which two runs disagree
"""

import argparse
from pathlib import Path

from shared.errors import UserError
from shared.machine.arguments import Parser
from shared.machine.files import expand_home

MOST = 200  # images of a section; the page holds all of them


def parse_arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m shared.gallery", allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter,
                    description="Show mistakes, unsure answers and disagreements, each with its Grad-CAM.")
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path,
                        help="one or two folders of finished runs, of either sibling")
    parser.add_argument("--count", metavar="N", type=int, default=12,
                        help=f"images in each section, 1 to {MOST}; default: 12")
    parser.add_argument("--out", metavar="FILE", type=Path,
                        help="the page, FILE.html, with a picture beside it; default: gallery.html in\n"
                        "the run's folder, or in the folder of two runs' group")
    options = parser.parse_args()
    if len(options.runs) > 2:
        raise UserError(f"{len(options.runs)} runs are named; name one or two")
    if not 1 <= options.count <= MOST:
        raise UserError(f"--count {options.count}: expected 1 to {MOST}")
    if options.out and options.out.suffix not in (".html", ".htm"):
        raise UserError(f"--out {options.out}: expected a name that ends in .html; the picture goes beside it, as .png")
    return options


def main() -> None:
    options = parse_arguments()
    from shared.scores.gallery.report import write_gallery  # here, so that --help need not wait for it

    folders = {path.resolve(): path for path in map(expand_home, options.runs)}  # each run once
    gallery = write_gallery(list(folders.values()), options.count, options.out and expand_home(options.out))
    for note in gallery.notes:
        print(note)
    print(f"page:    {gallery.page} ({gallery.images} images, {gallery.page.stat().st_size / 1000:,.0f} kB)")
    print(f"picture: {gallery.sheet}")
