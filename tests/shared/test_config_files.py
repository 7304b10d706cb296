"""Every file in configs/ parses, gives its reasons, and does what its header says."""

import re

import pytest
import yaml

from shared.config import Config, build_config, flatten, get_value, list_keys, load_config, read_yaml, to_yaml
from shared.config.reading import read_override
from shared.machine.files import REPOSITORY
from shared.machine.interpreters import list_siblings

# launchers/ holds files of schedulers, which tests/launchers checks, and sweep/ those of test_sweep_definition.py.
CONFIGS = sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "configs").rglob("*.yaml")
                 if path.parent.name not in ("launchers", "sweep"))
# What a config of one's own images is given on the command line, or names on its owner's machine.
NEEDED = {"image_folder": read_override("dataset.root=."), "imagenet_mini": read_override("dataset.root=.")}


def given(name: str) -> dict:
    """What another reader of YAML finds in a file, so that a preset means the same to it."""
    return flatten(yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8")))


def header(name: str) -> str:
    lines = (REPOSITORY / name).read_text().splitlines()
    return "\n".join(lines[:next(i for i, line in enumerate(lines) if not line.startswith("#"))])


def test_there_are_configs():
    assert {"configs/quickstart.yaml", "configs/cifar10_resnet18.yaml", "configs/fashion_mnist_resnet18.yaml",
            "configs/image_folder.yaml"} <= set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_gives_a_reason_for_each_value(name):
    text = (REPOSITORY / name).read_text()
    bare = [line for line in text.splitlines() if re.match(r" +\w+: *[^\s#]", line) and "#" not in line]
    # Which data set and model it is about, its header has said.
    assert [line for line in bare if not line.startswith("  name: ")] == []


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_parses_and_does_what_it_says(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    keys = given(name)
    needed = NEEDED.get(keys.get("dataset.name"), {})
    config = build_config([(name, read_yaml(REPOSITORY / name)), ("needed", needed)])
    if needed:
        keys.pop("dataset.root", None)
    found = {dotted: get_value(config, dotted) for dotted in keys}
    assert found == keys
    assert {dotted: type(value) for dotted, value in found.items() if isinstance(value, str | bool)} \
        == {dotted: type(value) for dotted, value in keys.items() if isinstance(value, str | bool)}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_config_that_a_run_keeps_of_a_preset_loads_to_the_same(name, monkeypatch, tmp_path):
    from omegaconf import OmegaConf

    monkeypatch.chdir(tmp_path)
    needed = NEEDED.get(given(name).get("dataset.name"), {})
    config = build_config([(name, read_yaml(REPOSITORY / name)), ("needed", needed)])
    (tmp_path / "kept.yaml").write_text(to_yaml(config))
    # As runs of before have it, which OmegaConf alone wrote.
    (tmp_path / "older.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    assert load_config(tmp_path / "kept.yaml") == load_config(tmp_path / "older.yaml") == config


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.count("/") == 1])
def test_a_preset_states_only_what_differs_from_the_defaults(name):
    same = {dotted for dotted, value in given(name).items() if value == get_value(Config(), dotted)}
    assert same == set()


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.count("/") == 1])
def test_a_preset_opens_with_its_claim(name):
    claim = header(name)
    arguments = "" if name == "configs/quickstart.yaml" else f" {name}"
    for sibling in list_siblings():
        assert f"python {sibling}_project/train.py{arguments}" in claim
    assert set(read_claim(name)) == {"hardware", "minutes", "accuracy", "source"}


def read_claim(name: str) -> dict[str, str]:
    """What a preset's header says under each word, in one line."""
    found = re.findall(r"^# (\w+) {2,}(\S.*(?:\n# {5,}\S.*)*)", header(name), re.MULTILINE)
    return {word: re.sub(r"\n# +", " ", told) for word, told in found}


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.count("/") == 1])
def test_a_claim_is_on_the_page_of_results_and_what_is_not_measured_says_what_it_needs(name):
    claim = read_claim(name)
    called = "the quick start\n" if name == "configs/quickstart.yaml" else name
    sections = re.split(r"^(?=## )", (REPOSITORY / "docs" / "results.md").read_text(), flags=re.MULTILINE)
    told = " ".join(" ".join(section.split()) for section in sections if called in section)
    claimed = [f"{minutes} minutes" for minutes in re.findall(r"\b[\d.]+(?: to [\d.]+)?\b", claim["minutes"])] + \
        re.findall(r"\d+\.\d+", claim["accuracy"])
    assert [figure for figure in claimed if not re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d)", told)] == []
    for word in ("minutes", "accuracy"):
        if "not measured" in claim[word]:
            assert claim["hardware"].startswith("needs "), f"{word} is not measured: begin the hardware with needs"
        else:
            assert re.search(r"\d", claim[word]), word


@pytest.mark.parametrize("name", [name for name in CONFIGS if "/debug/" in name])
def test_a_debug_config_can_follow_any_preset(name, monkeypatch, tmp_path):
    assert len(header(name)) > 30
    monkeypatch.chdir(tmp_path)
    for preset in (preset for preset in CONFIGS if preset.count("/") == 1):
        needed = NEEDED.get(given(preset).get("dataset.name"), {})
        build_config([(preset, read_yaml(REPOSITORY / preset)), ("needed", needed),
                      (name, read_yaml(REPOSITORY / name))])


def test_a_config_key_that_is_not_in_the_schema_would_be_found():
    assert set().union(*map(given, CONFIGS)) <= set(list_keys())
