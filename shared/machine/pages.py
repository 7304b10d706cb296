"""Parts of a page that a command writes, between two comments."""

import re
from pathlib import Path

from shared.errors import UserError
from shared.machine.files import write_whole


def write_section(page: Path, name: str, section: str) -> None:
    """Replace what a page has between <!-- NAME --> and <!-- end of NAME -->.

    Raises:
        UserError: where the page has no such lines, or cannot be written.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    old = page.read_text(encoding="utf-8") if page.is_file() else ""
    new, count = re.subn(f"(?<={re.escape(begin)}).*?(?={re.escape(end)})", lambda found: f"\n{section}\n\n", old,
                         count=1, flags=re.DOTALL)
    if not count:
        raise UserError(f"{page} has no lines {begin.strip()} and {end.strip()}; write them where the table belongs")
    write_whole(page, lambda file: file.write_text(new, encoding="utf-8"), advice="name another page")
