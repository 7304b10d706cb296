"""Sections of a page that commands write."""

import pytest

from shared.errors import UserError
from shared.machine.pages import list_marks, place_section, write_section


def test_a_section_is_replaced_and_what_is_around_it_stays(tmp_path):
    page = tmp_path / "page.md"
    begin, end = list_marks("make table")
    page.write_text(f"# Title\n\n{begin}\nold \\1\n{end}\n\nafter\n")
    for text in ("first\n", "second \\1"):
        write_section(page, "make table", text)
    assert page.read_text() == f"# Title\n\n{begin}\n\nsecond \\1\n\n{end}\n\nafter\n"
    assert place_section(page, "make table", "second \\1") == page.read_text()


def test_a_page_that_is_not_there_gets_the_section_alone(tmp_path):
    write_section(tmp_path / "page.md", "make table", "text")
    assert "\n\ntext\n\n" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize("text", ["# Title\n", "".join(list_marks("make other")), list_marks("make table")[0],
                                  "".join(reversed(list_marks("make table")))])
def test_a_page_without_the_marks_stays_as_it_is(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(UserError, match=r"page\.md has no place for what make table writes; put these two lines"):
        write_section(page, "make table", "text")
    assert page.read_text() == text
