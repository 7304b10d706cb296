"""Predictions as rows: their columns, and files of CSV, JSON lines or Parquet that are whole or not there."""

import contextlib
import csv
import importlib.util
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO, TextIO

from shared.artifacts.prediction.answers import Prediction
from shared.errors import UserError

FORMATS = ("csv", "jsonl", "parquet")
GROUP = 4096  # rows of a Parquet file that are compressed together

Row = list[str | float | None]


@dataclass(frozen=True)
class Layout:
    """Which columns there are: the most probable `top` of the `classes`, the labels where `labelled`, and `logits`."""

    classes: tuple[str, ...]
    labelled: bool = False
    top: int = 1
    logits: bool = False

    @property
    def columns(self) -> dict[str, type]:
        """The type of each column by its name, in order."""
        ranks = ["", *(f"_{rank}" for rank in range(2, self.top + 1))]
        return {"path": str, **({"label": str} if self.labelled else {}),
                **{f"{name}{rank}": kind for rank in ranks for name, kind in (("class", str), ("probability", float))},
                **({f"logit_{name}": float for name in self.classes} if self.logits else {}),
                "error": str}

    def arrange(self, prediction: Prediction) -> Row:
        """The values of the columns; None where there is none."""
        row: Row = [show_path(prediction.path)]
        if self.labelled:
            row.append(prediction.label or None)
        if prediction.error:
            return [*row, *[None] * (len(self.columns) - len(row) - 1), prediction.error]
        for name, share in prediction.rank(self.top):
            row += [name, float(f"{share:.7g}")]
        if self.logits:  # nine digits tell each float32 from its neighbours
            row += [float(f"{logit:.9g}") for logit in prediction.logits.tolist()]
        return [*row, None]


def show_path(path: str) -> str:
    """The path as text. Bytes of a name that are no UTF-8 are written as \\xe9, since no format can hold them."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class CsvWriter:
    """The header comes with the first row, so that a mistake that is told before leaves nothing on standard output."""

    def __init__(self, file: TextIO, layout: Layout):
        # Before 3.13, Python quotes a "\r" in a name only if lines end in it, and a reader would end the line there.
        lines = SimpleNamespace(write=lambda line: file.write(line.removesuffix("\r\n") + "\n"))
        self.writer, self.header = csv.writer(lines, lineterminator="\r\n"), list(layout.columns)

    def write(self, row: Row) -> None:
        if self.header:
            self.writer.writerow(self.header)
            self.header = []
        self.writer.writerow(row)

    def close(self) -> None:
        pass


class JsonLinesWriter:
    """One JSON object on each line, https://jsonlines.org. Columns without a value are null."""

    def __init__(self, file: TextIO, layout: Layout):
        self.file, self.names = file, list(layout.columns)

    def write(self, row: Row) -> None:
        self.file.write(json.dumps(dict(zip(self.names, row, strict=True)), ensure_ascii=False) + "\n")

    def close(self) -> None:
        pass


class ParquetWriter:
    """Rows in groups of GROUP, of which one is in memory."""

    def __init__(self, file: BinaryIO, layout: Layout):
        import pyarrow
        from pyarrow import parquet

        kinds = {str: pyarrow.string(), float: pyarrow.float32()}
        self.schema = pyarrow.schema([(name, kinds[kind]) for name, kind in layout.columns.items()])
        self.writer, self.rows = parquet.ParquetWriter(file, self.schema), []

    def write(self, row: Row) -> None:
        self.rows.append(row)
        if len(self.rows) == GROUP:
            self.write_group()

    def write_group(self) -> None:
        import pyarrow

        columns = [pyarrow.array(values, column.type)
                   for values, column in zip(zip(*self.rows, strict=True), self.schema, strict=True)]
        self.writer.write_table(pyarrow.Table.from_arrays(columns, schema=self.schema))
        self.rows = []

    def close(self) -> None:
        try:
            if self.rows:
                self.write_group()
        finally:
            self.writer.close()


def choose_format(out: Path | None, named: str | None) -> str:
    """The format of the rows: as `named` for standard output, csv where nothing is, or as the file's name ends.

    Raises:
        UserError: where there is no such format, or it cannot be written here.
    """
    if out is None:
        if sys.stdout is None:
            raise UserError("standard output is closed; name a file with --out FILE")
        if named == "parquet":
            raise UserError("Parquet is written into a file; use --out FILE.parquet")
        return named or "csv"
    if named:
        raise UserError(f"--format is for standard output, and --out {out} says the format by its ending; leave "
                        "--format out")
    form = out.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        raise UserError(f"--out {out} has to end in .{', .'.join(FORMATS[:-1])} or .{FORMATS[-1]}, which says the "
                        "format")
    if form == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError("pyarrow is not installed here, which Parquet needs; pip install pyarrow, or name a .csv or "
                        ".jsonl file")
    return form


@contextlib.contextmanager
def open_rows(out: Path | None, form: str, layout: Layout) -> Iterator[Callable[[Row], None]]:
    """A function that writes a row to standard output or to the file `out`, which gets its name once it is whole.

    Raises:
        UserError: where the file cannot be written.
    """
    writers = {"csv": CsvWriter, "jsonl": JsonLinesWriter, "parquet": ParquetWriter}
    if out is None:
        if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # as --out, whatever the locale says
        yield writers[form](sys.stdout, layout).write
        return
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; name a file")
    unfinished = out.with_name(f"{out.name}.unfinished")
    with explain_failure(out):  # closed below, where a full disk may refuse what is still to be written
        file = open(unfinished, "wb") if form == "parquet" else \
            open(unfinished, "w", encoding="utf-8", newline="")  # noqa: SIM115
    closing = [file.close]
    try:
        writer = writers[form](file, layout)
        closing.insert(0, writer.close)  # first, or pyarrow closes its part later and complains

        def write(row: Row) -> None:
            with explain_failure(out):
                writer.write(row)
        yield write
        with explain_failure(out):
            writer.close()
            file.close()
            os.replace(unfinished, out)
    except BaseException:  # Ctrl-C too
        for close in closing:
            with contextlib.suppress(Exception):  # what is still to be written fails once more on a full disk
                close()
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def explain_failure(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--out {out} cannot be written ({error.strerror or error}); what was there before is whole; "
                        "make room, or name a file in a folder that exists and may be written to") from None
