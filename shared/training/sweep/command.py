"""Search the keys of an experiment in both siblings, or train all combinations of some values.

    python -m shared.sweep configs/sweep/digits.yaml              search; the same command goes on after a fault
    python -m shared.sweep configs/sweep/digits.yaml --wandb      write the files of a W&B sweep instead
    python -m shared.sweep --grid seed=0,1,2 model.name=resnet18,vit_tiny      all combinations, without search
    python -m shared.sweep --grid seed=0,1,2 --slurm grid.sbatch  write the script of a SLURM job array instead
"""

import argparse
import sys
from pathlib import Path

from shared.config.reading import is_path
from shared.errors import UserError
from shared.machine.arguments import Parser
from shared.machine.files import expand_home
from shared.training.sweep.definition import choose_siblings, read_sweep
from shared.training.sweep.grid import list_points, run_grid, write_array


def parse_arguments(words: list[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m shared.sweep", allow_abbrev=False, description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", metavar="WORD", nargs="*", help="a sweep's file, then key=value over its fixed keys; "
                        "with --grid, config files and key=value,value,...")
    parser.add_argument("--grid", action="store_true", help="train all combinations of the values named")
    parser.add_argument("--siblings", help="lightning, keras, or both with a comma; default: what the file says, else "
                        "all that are here")
    parser.add_argument("--trials", type=int, metavar="N", help="sets of values to try, in place of what the file says")
    parser.add_argument("--at-once", type=int, metavar="N", default=1, help="trainings at a time; default: 1")
    parser.add_argument("--storage", metavar="WHERE", help="the store of the trials: a database's URL, or the path of "
                        "a journal, which may be on NFS; default: study.db in the sweep's folder")
    parser.add_argument("--wandb", action="store_true", help="write the files of a W&B sweep, and train nothing")
    parser.add_argument("--slurm", metavar="FILE", type=Path, help="with --grid: write the script of a job array, and "
                        "train nothing")
    return parser.parse_intermixed_args(words)


def main() -> None:
    options = parse_arguments(sys.argv[1:])
    for name in ("trials", "at_once"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} has to be at least 1")
    siblings = options.siblings.split(",") if options.siblings else []
    if options.grid:
        for name in ("trials", "storage", "wandb"):
            if getattr(options, name):
                raise UserError(f"--{name} is for a search, and --grid searches nothing; leave one of them out")
        points = list_points(options.words, choose_siblings(siblings))
        if options.slurm:
            write_array(points, expand_home(options.slurm))
            print(f"{len(points)} trainings: sbatch {options.slurm}")
            return
        sys.exit(0 if run_grid(points, options.at_once) else 1)
    if options.slurm:
        raise UserError("--slurm is for --grid; to search on several machines, start the same command on each, with "
                        "the same --storage")
    files = [word for word in options.words if is_path(word)]
    if len(files) != 1 or options.words[0] != files[0]:
        raise UserError("name the file of a sweep first, such as configs/sweep/digits.yaml, or use --grid; see --help")
    sweep = read_sweep(files[0], options.words[1:], siblings, options.trials)
    if options.wandb:
        from shared.training.sweep.wandb_file import write_wandb_files

        for path in write_wandb_files(sweep):
            print(f"wandb sweep {path}")
        return
    from shared.training.sweep.search import run_search

    run_search(sweep, options.storage, options.at_once)
