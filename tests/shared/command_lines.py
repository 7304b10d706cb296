"""What the words of a command line become: a config, or the line that refuses them."""


import pytest

from shared.config import (
    parse_config,
)
from shared.errors import UserError, extract_user_message


def parsed(*words):
    return parse_config(list(words), "python train.py", "Train.")


def refused(*words):
    """The line that the user sees."""
    with pytest.raises(UserError) as caught:
        parsed(*words)
    line = extract_user_message(caught.value)
    assert len(line.splitlines()) == 1
    return line
