"""What was found on a machine: a JSON file, a page beside it, and the table in docs/scaling.md that is made of all such
files in docs/gpu."""

import json
import re
from pathlib import Path
from typing import Any

from shared.bench.gpu.parts import PARTS, list_parts
from shared.errors import UserError
from shared.machine.console import Table
from shared.machine.files import REPOSITORY, write_json, write_whole
from shared.machine.pages import write_section

KEPT = REPOSITORY / "docs" / "gpu"
PAGE = REPOSITORY / "docs" / "scaling.md"
COMMAND = "make check-gpu"  # whose table the page has
NAMES = {"lightning": "PyTorch Lightning", "keras": "Keras"}
NOT_RUN = "not run on a GPU"
ADVICE = "make room, or name another folder with --out"
CHANGING = ("date", "dirty")  # facts of a machine that may differ between two calls for one record


class Record:
    """What was found on a `machine`, in a file in `folder` that is written after each part.

    `siblings` holds what each says of its GPU and its packages, `parts` {sibling/part: {outcome, text, figures,
    seconds}}.
    """

    def __init__(self, folder: Path, machine: dict[str, Any], siblings: dict[str, dict[str, Any]], anew: bool = False):
        """Go on with the record that is there, or begin one.

        Raises:
            UserError: where that is of another state of the machine, and is not to be begun `anew`.
        """
        name = re.sub(r"[^a-z0-9]+", "-", machine["device"].lower()).strip("-")
        self.file, self.machine, self.siblings, self.parts = folder / f"{name}.json", machine, siblings, {}
        if not self.file.exists():
            return
        kept = read_record(self.file)
        changed = [name for name, fact in machine.items() if name not in CHANGING and kept["machine"].get(name) != fact]
        changed += [name for name, facts in siblings.items() if kept["siblings"].get(name, facts) != facts]
        if not changed:
            self.machine, self.siblings, self.parts = kept["machine"], kept["siblings"] | siblings, kept["parts"]
        elif not anew:
            raise UserError(f"{self.file} is of another state of this machine ({', '.join(changed)}); begin it anew "
                            "with --again, or name another folder with --out")

    def add(self, name: str, found: dict[str, Any]) -> None:
        self.parts[name] = found
        content = {"machine": self.machine, "siblings": self.siblings, "parts": self.parts}
        write_json(self.file, content, advice=ADVICE)
        write_whole(self.file.with_suffix(".md"), lambda file: file.write_text(self.to_markdown(), encoding="utf-8"),
                    advice=ADVICE)

    def to_markdown(self) -> str:
        lines = [f"# {self.machine['device']}", "", "Made by `make check-gpu`.", "", list_facts(self.machine)]
        for sibling, facts in self.siblings.items():
            table = Table(["part", "outcome", "seconds", "what was found"], [])
            for name, part in list_parts((sibling,)).items():
                found = self.parts.get(name, {"outcome": "not run", "seconds": 0, "text": ""})
                table.rows.append([part.title, found["outcome"], f"{found['seconds']:.0f}", found["text"]])
            lines += ["", f"## {NAMES[sibling]}", "", list_facts(facts | facts["versions"]), "", to_markdown(table)]
        return "\n".join(lines) + "\n"


def list_facts(facts: dict[str, Any]) -> str:
    return "; ".join(f"{name} {value}" for name, value in facts.items() if name != "versions" and value is not None)


def read_record(file: Path) -> dict[str, Any]:
    """A record. Raises `UserError` where the file is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {name: dict(content[name]) for name in ("machine", "siblings", "parts")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no record of make check-gpu ({error!r}); move it away") from None


def tabulate_support(folder: Path = KEPT) -> str:
    """A row for each part, with its outcome on each GPU that has a record in `folder`."""
    records = [(file.stem, read_record(file)) for file in sorted(folder.glob("*.json"))]
    table = Table(["on a GPU", *NAMES.values()], [])
    for name, part in PARTS.items():
        table.rows.append([part.title])
        for sibling in NAMES:
            found = [f"{record['parts'][part_name]['outcome']}: [{record['machine']['device']}](gpu/{stem}.md)"
                     for stem, record in records if record["machine"]["accelerator"] == "gpu"
                     if (part_name := f"{sibling}/{name}") in record["parts"]]
            table.rows[-1].append("; ".join(found) or (NOT_RUN if part.only in ("", sibling) else "–"))
    return to_markdown(table)


def to_markdown(table: Table) -> str:
    """The table with its cells to the left, since they hold words and not numbers."""
    return table.to_markdown().replace(" ---: ", " --- ")


def update_page() -> None:
    """Write the table into docs/scaling.md."""
    write_section(PAGE, COMMAND, tabulate_support())
