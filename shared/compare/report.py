"""Comparing runs: everything that is to be said about them, and writing the picture and the pages."""

from dataclasses import replace
from pathlib import Path

from shared.compare.classes import compare_scores
from shared.compare.facts import list_notes, tabulate_facts
from shared.compare.noise import report_seeds
from shared.compare.page import Comparison, format_heading, format_markdown
from shared.compare.verdict import find_differences
from shared.errors import UserError
from shared.machine.files import write_whole
from shared.runs.records import FRAMEWORKS, label_runs, read_run, select_newest_runs


def compare_runs(folders: list[Path], out: Path | None = None, seeds: bool = False, html: bool = False) -> Comparison:
    """Compare the runs in `folders`, and write comparison.png and comparison.md into `out`, or beside the first run.

    With `seeds`, runs are chosen and paired as `examine_runs` does. With `html`, comparison.html is written too.

    Where they cannot be written, as beside runs that are for reading only, what is returned says why.

    Raises:
        UserError: where a folder holds no run, or a file in it is damaged.
    """
    found = examine_runs(folders, seeds)
    out = out or found.runs[0].folder.resolve().parent
    page = ""
    if html:
        from shared.compare.web.page import format_page  # here, since it takes a second that a table need not wait for

        page = format_page(format_heading(found.runs), found.verdict, found.runs, found.differences, found.left_out,
                           seeds)
    found = replace(found, picture=out / "comparison.png", page=out / "comparison.md",
                    html=out / "comparison.html" if html else None)
    try:
        write_files(found, page)
    except UserError as error:
        return replace(found, unwritten=str(error))
    return found


def examine_runs(folders: list[Path], seeds: bool = False) -> Comparison:
    """Compare the runs in `folders`, and write nothing.

    With `seeds`, only the newest finished run of each sibling and seed counts, and runs of the same seed are paired.

    Raises:
        UserError: where a folder holds no run, or a file in it is damaged.
    """
    distinct = {folder.resolve(): folder for folder in folders}
    runs = [read_run(folder) for folder in distinct.values()]
    left_out = []
    if seeds:
        finished = select_newest_runs((run for run in runs if run.finished), by=lambda run: (run.framework, run.seed))
        if not finished:
            raise UserError("--seeds compares final scores, and none of these runs has finished")
        if len(finished) < len(runs):
            left_out.append(f"Left out: {len(runs) - len(finished)} unfinished or older runs of a seed.")
        runs = sorted(finished, key=lambda run: run.seed)
    runs.sort(key=lambda run: FRAMEWORKS.index(run.framework))  # the order within a framework stays
    differences = find_differences(runs, up_to_seed=seeds)
    same = "same experiment" + (f" up to the seed ({len({run.seed for run in runs})} seeds)" if seeds else "")
    verdict = ("one run, nothing to compare it with" if len(runs) == 1 else
               f"NOT the same experiment: {'; '.join(differences)}" if differences else same)
    blocks = tabulate_facts(runs) + compare_scores(runs) + list_notes(runs) + left_out + (
        report_seeds(runs) if seeds else [])
    return Comparison(runs, differences, verdict, blocks, left_out)


def write_files(found: Comparison, html: str) -> None:
    """Write the files of a comparison, or raise `UserError`. What was there before stays where one cannot be written.
    """
    from shared.compare.curves import draw_comparison

    advice, same = "choose another folder with --out", not found.differences
    title, text = format_heading(found.runs), format_markdown(found)
    try:
        found.page.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{found.page.parent} cannot be made: {error.strerror or error}; {advice}") from None
    write_whole(found.picture, lambda file: draw_comparison(
        found.runs, label_runs(found.runs), title, found.verdict, same, file), advice=advice)
    write_whole(found.page, lambda file: file.write_text(text, encoding="utf-8"), advice=advice)
    if found.html:
        write_whole(found.html, lambda file: file.write_text(html, encoding="utf-8"), advice=advice)
