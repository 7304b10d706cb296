"""A text stays what was written, and a number is decimal, on the command line and in files."""

import pytest

from shared.config import Config, list_keys, load_config, to_yaml
from tests.shared.command_lines import parsed, refused

# Without quotes, a file that holds one means it as it stands.
LIKE_NUMBERS = ["08", "0x1F", "0o17", "1_000", "2024-06-01", "23:59", "6.0", "5e-4", "+1", ".5", ".inf", "on", "Off",
                "Yes", "n", "true", "a#b", "a:b", "lr=0.1", "it's"]
TEXTS = [*LIKE_NUMBERS, "set #3", "#3", "a #", "NaN", "null", "~", "<<", "=", "a: b", "{a: 1}", "[a, b]", "- a", "a,",
         "'a'", '"a"', "&a", "*a", "!a", "%a", "@a", "|", ">", "?", "-", "---", "\\d", "$HOME", "{}", "", " a ", "é",
         "a\tb"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_of_the_command_line_is_what_was_typed(written, text):
    config = parsed(f"tracking.project={text}")
    assert config.tracking.project == text
    assert load_config(written(to_yaml(config))) == config


@pytest.mark.parametrize("dotted", [dotted for dotted, item in list_keys().items()
                                    if item.type is str and item.metadata["choices"] and not item.metadata["prefixes"]])
def test_a_choice_is_compared_as_it_was_typed(dotted):
    assert f"{dotted}='no #1' is not one of " in refused(f"{dotted}=no #1")


@pytest.mark.parametrize("text", LIKE_NUMBERS)
def test_a_text_of_a_file_without_quotes_is_what_is_written(written, text):
    assert parsed(written(f"tracking:\n  project: {text}   # why\n  tags: [{text}]\n")).tracking == \
        parsed(f"tracking.project={text}", f'tracking.tags=["{text}"]').tracking


@pytest.mark.parametrize("text", ["null", "Null", "NULL", "~"])
def test_no_value_and_its_word_are_told_apart_in_a_file(written, text):
    assert refused(written(f"seed: 1\ntracking:\n  project: {text}\n")).endswith(
        "given.yaml: line 3: 'tracking.project' has no value; give one, or leave the key out for its default; put it "
        f"in quotes if the text '{text}' is meant")
    assert f"if the text '{text}' is meant" in refused(written(f"tracking: {{tags: [a, {text}]}}\n"))
    assert parsed(written(f"tracking: {{project: '{text}', tags: ['{text}']}}\n")).tracking.tags == [text]


@pytest.mark.parametrize(("value", "comment"), [("run #4", "#4"), ("photos  #best of them", "#best of them"),
                                                ("a #b # c", "#b # c")])
def test_a_comment_that_may_be_a_part_of_the_text_is_refused(written, value, comment):
    hint = f"is followed by '{comment}'; put the value in quotes if that is a part of it, or a space after the '#'"
    assert f"line 1: 'experiment' {hint}" in refused(written(f"experiment: {value}\n"))
    assert f"line 3: 'tracking.tags' {hint}" in refused(written(f"tracking:\n  tags:\n  - {value}\n"))
    assert parsed(written(f"experiment: '{value}' #why\n")).experiment == value
    assert parsed(written(f"seed: 3 {comment}\n")).seed == 3  # no part of a number


@pytest.mark.parametrize(("text", "value"), [("08", 8), ("1_000", 1000), ("+7", 7), ("00", 0), ("'9'", 9)])
def test_a_whole_number_is_decimal(written, text, value):
    assert parsed(written(f"dataset:\n  limit_train: {text}\n")).dataset.limit_train == value
    assert parsed(f"dataset.limit_train={text.strip(chr(39))}").dataset.limit_train == value


@pytest.mark.parametrize("text", ["0x10", "0o10", "0b10", "1:30:00", "1e3", "4.0", "1__0", "_1", "1_", " 1", "٣",
                                  "True", "9" * 5000, "2024-06-01", "1,000"])
def test_what_is_no_whole_decimal_number_is_refused(written, text):
    assert "is not of type int; write a whole decimal number" in refused(f"train.epochs={text}")
    if text.strip() == text and "," not in text:
        assert "line 2: train.epochs=" in refused(written(f"train:\n  epochs: {text}\n"))


@pytest.mark.parametrize(("text", "value"), [("5E-4", 5e-4), ("1_0.5", 10.5), (".5", 0.5), ("2.", 2.0), ("007", 7.0),
                                             ("+1e1", 10.0)])
def test_a_number_is_decimal(written, text, value):
    assert parsed(f"optimizer.lr={text}").optimizer.lr == value
    assert parsed(written(f"optimizer: {{lr: {text}}}\n")).optimizer.lr == value


@pytest.mark.parametrize("text", ["0x1p3", "1:30", "1e", "1,5", "1/3", "10%", "e3", "yes", "½"])
def test_what_is_no_decimal_number_is_refused(written, text):
    assert f"optimizer.lr='{text}' is not of type float; write a decimal number" in refused(f"optimizer.lr={text}")
    assert "is not of type list of float" in refused(f"dataset.mean=[0.5, '{text}']")
    assert "line 1: optimizer.lr=" in refused(written(f"optimizer: {{lr: '{text}'}}\n"))


@pytest.mark.parametrize(("text", "value"), [("true", True), ("FALSE", False), ("True", True), ("tRUE", True)])
def test_true_and_false_are_the_two_values_of_a_switch(written, text, value):
    assert parsed(f"augment.flip={text}").augment.flip is value
    assert parsed(written(f"augment: {{flip: {text}}}\n")).augment.flip is value


@pytest.mark.parametrize("text", ["yes", "No", "on", "off", "y", "1", "0", "t"])
def test_no_other_word_is_a_switch(written, text):
    assert f"augment.flip='{text}' is not of type bool; write true or false" in refused(f"augment.flip={text}")
    assert "line 1: augment.flip=" in refused(written(f"augment: {{flip: {text}}}\n"))


@pytest.mark.parametrize(("text", "items"), [
    ("[no, 08, 1e2, null]", ["no", "08", "1e2", "null"]), ("[run #3,b]", ["run #3", "b"]),
    ("[ a b ,  'c, d' , \"e]\" ]", ["a b", "c, d", "e]"]), ("[it's, 5:30]", ["it's", "5:30"]), ("[]", []), ("[ ]", []),
    ("['']", [""]), ("[a: b]", ["a: b"])])
def test_the_items_of_a_list_are_what_was_typed(written, text, items):
    config = parsed(f"tracking.tags={text}")
    assert config.tracking.tags == items
    assert load_config(written(to_yaml(config))) == config


@pytest.mark.parametrize("text", ["[a,,b]", "[a,]", "[,a]", "[a", "a]", "a, b", "[a] b", "[a]]", "[{a}]", "['a]", ""])
def test_what_is_no_list_is_refused(text):
    assert "is not of type list of str; write a list such as [a, b]" in refused(f"tracking.tags={text}")


@pytest.mark.parametrize(("text", "hint"), [
    ("train:\n  epochs: 3\n  epochs: 4\n", "line 3: duplicate key 'train.epochs', which line 2 has too"),
    ("train: {epochs: 3}\nseed: 1\ntrain: {batch_size: 8}\n", "line 3: duplicate key 'train', which line 1 has too"),
    ("tracking: {'tags': [], tags: [a]}\n", "line 1: duplicate key 'tracking.tags'"),
    ("optimizer.lr: 1\noptimizer:\n  lr: 2\n", "'optimizer.lr' is there twice; leave one of them")])
def test_a_key_that_is_there_twice_is_refused(written, text, hint):
    assert f"given.yaml: {hint}" in refused(written(text))


def test_sections_may_be_merged_from_one_another(written):
    config = parsed(written("dataset: &one {limit_train: 700, limit_test: 80}\n"
                            "train: {batch_size: &size 32, eval_batch_size: *size}\n"))
    assert (config.dataset.limit_test, config.train.eval_batch_size) == (80, 32)
    twice = written("model: &one {name: vit_tiny}\ndataset:\n  <<: *one\n  name: cifar10\n")
    assert parsed(twice).dataset.name == "cifar10"


@pytest.mark.parametrize("start", ["", "\ufeff", "%YAML 1.2\n---\n"])
def test_a_file_may_begin_as_editors_write_it(written, start):
    assert parsed(written(f"{start}experiment: größe\n")) == Config(experiment="größe")
