"""Where the key of Weights & Biases may be, as W&B itself looks for it."""

import pytest

from shared.training.trackers.wandb import has_api_key

pytestmark = pytest.mark.usefixtures("nobody")


@pytest.mark.parametrize(("content", "address", "expected"), [
    ("machine api.wandb.ai login user password {key}", None, True),
    ("machine api.wandb.ai login user password \"\"", None, False),
    ("machine elsewhere.org login user password {key}", None, False),
    ("machine localhost:8080 login user password {key}", "http://localhost:8080", True),
    ("machine localhost login user password {key}", "http://localhost:8080", False),  # W&B asks for the port too
    ("machine api.wandb.ai login user password {key}", "", True),
    ("nonsense {key}", None, False),
])
@pytest.mark.parametrize("place", [".netrc", "_netrc", "named"])
def test_a_key_in_a_netrc_file(nobody, monkeypatch, content, address, expected, place):
    (nobody / place).write_text(content.format(key="x" * 40) + "\n")
    if place == "named":
        monkeypatch.setenv("NETRC", str(nobody / place))
    if address is not None:
        monkeypatch.setenv("WANDB_BASE_URL", address)
    assert has_api_key() is expected


def test_a_netrc_file_that_others_may_read_counts_as_it_does_for_wandb(nobody):
    (nobody / ".netrc").write_text(f"machine api.wandb.ai login user password {'x' * 40}\n")
    (nobody / ".netrc").chmod(0o644)
    assert has_api_key()


def test_a_key_in_the_environment(monkeypatch):
    assert not has_api_key()
    monkeypatch.setenv("WANDB_API_KEY", "")
    assert not has_api_key()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert has_api_key()
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("WANDB_IDENTITY_TOKEN_FILE", "token")
    assert has_api_key()
