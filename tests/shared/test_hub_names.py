"""What names of data sets of the hub mean, and the names of the folders they are kept in."""


import pytest

from shared.config import parse_config
from shared.data import hub
from shared.data.definition import HubSource
from shared.data.definitions import find_definition
from shared.errors import UserError
from tests.shared.pets import (
    config_for,
)


@pytest.mark.parametrize(("name", "source"), [
    ("hf:digits", ("digits",)), ("hf:owner/pets", ("owner/pets",)), ("hf:owner/pets@small", ("owner/pets", "small")),
    ("hf:owner/pets#kind", ("owner/pets", "", ("kind",))),
    ("hf:owner/pets@small#picture,kind", ("owner/pets", "small", ("picture", "kind"))),
])
def test_what_a_name_means(name, source):
    found = find_definition(name, "160")
    assert found.hub == HubSource(name, *source)
    assert (found.needs_root, found.has_files) == (False, False)
    place, = found.folders
    assert place.startswith("hf/")
    assert place.count("/") == 1


def test_a_folder_of_any_name(tmp_path):
    odd = tmp_path / "pets@home#1"
    odd.mkdir()
    assert find_definition(f"hf:{odd}", "160").hub == HubSource(f"hf:{odd}", str(odd))


@pytest.mark.parametrize("name", ["dog", "a/cat", "100%", ".hidden", "", "CON", "..", 'a "b" <c>: d|e?*\\', "katze_ü",
                                  "3_x"])
def test_names_of_classes_survive_as_names_of_folders(name, tmp_path):
    place = tmp_path / f"07_{hub.encode_name(name)}"
    place.mkdir()
    assert hub.decode_class(place.name) == name


def test_the_config_accepts_and_refuses(tmp_path):
    config = parse_config(["dataset.name=hf:owner/pets@small#kind", "experiment="], "", "")
    assert config.group == "hf-owner-pets@small#kind_resnet18"  # one folder, not two
    for name, facts, message in (("", {}, r"dataset.name='hf:' is not one of digits, .*, hf:NAME"),
                                 ("owner/pets", {"root": str(tmp_path)}, "is kept in the cache folder; leave it out"),
                                 ("owner/pets", {"variant": "320"}, "dataset.variant=320 is not for dataset.name=hf")):
        with pytest.raises(UserError, match=message):
            config_for(name, **facts)


def test_the_folder_of_a_hub_name_never_changes():
    """People's caches hold it; another name would load everything once more."""
    assert find_definition("hf:owner/pets@small#kind", "160").folders == ("hf/owner--pets@small#kind",)
