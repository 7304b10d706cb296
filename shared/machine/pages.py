"""Parts of a page that a command writes, between two comments."""

from pathlib import Path

from shared.errors import UserError
from shared.machine.files import write_whole


def list_marks(command: str) -> tuple[str, str]:
    """The lines before and after what `command` writes."""
    return (f"<!-- Written by {command}; what is changed here is lost. -->",
            f"<!-- The end of what {command} writes. -->")


def place_section(page: Path, command: str, section: str) -> str:
    """The text of a page with `section` in place of what is between the marks of `command`; a page that is not there
    yet has nothing else.

    Raises:
        UserError: where the page cannot be read or has no such marks.
    """
    begin, end = list_marks(command)
    try:
        text = page.read_text(encoding="utf-8") if page.exists() else f"{begin}\n{end}\n"
    except OSError as error:
        raise UserError(f"{page}: {error.strerror}; name another page") from None
    before, begun, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise UserError(f"{page} has no place for what {command} writes; put these two lines where it belongs: {begin} "
                        f"and {end}")
    return f"{before}{begin}\n\n{section.strip()}\n\n{end}{after}"


def write_section(page: Path, command: str, section: str, advice: str = "name another page") -> None:
    """Write the page as `place_section` gives it. Raises `UserError` as it does, and where it cannot be written."""
    text = place_section(page, command, section)
    write_whole(page, lambda file: file.write_text(text, encoding="utf-8"), advice=advice)
