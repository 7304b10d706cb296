"""Comparison of made run folders: reading, the fairness gate, table, picture, seeds and the command line."""

import json
import subprocess
import sys

import numpy as np
import pytest
from omegaconf import OmegaConf

from shared.compare import __main__ as command
from shared.compare import facts, noise
from shared.compare.__main__ import main
from shared.compare.facts import tabulate_facts
from shared.compare.page import format_text
from shared.compare.report import compare_runs
from shared.compare.verdict import find_differences
from shared.config import Config, to_dict
from shared.errors import UserError
from shared.machine.files import REPOSITORY
from shared.runs.records import label_runs, read_run

LABELS = np.arange(50) % 10
EPOCHS = (0.4, 0.7, 0.9, 0.94)


@pytest.fixture
def here(monkeypatch):
    """Say which siblings' folders are here."""
    def say(*siblings):
        for module in (command, facts, noise):
            monkeypatch.setattr(module, "list_siblings", lambda: siblings)
    return say


@pytest.fixture(autouse=True)
def both_here(here):
    here("lightning", "keras")


def predictions(wrong, label=LABELS, index=None):
    """Logits that name the right class for all images but those in `wrong`."""
    answer = np.where(np.isin(np.arange(len(label)), wrong), (label + 1) % 10, label)
    return {"index": np.arange(len(label)) if index is None else index, "label": label,
            "logits": np.eye(10, dtype=np.float32)[answer]}


def make_run(root, framework="lightning", seed=0, group="quickstart", stamp="20260101-120000", wrong=(0,),
             finished=True, config=None, record=None, history=None):
    """A run folder as `shared.runs` leaves it. `config` has dotted keys; `record` is merged into run.json."""
    folder = root / group / f"{framework}_seed{seed}_{stamp}"
    folder.mkdir(parents=True)
    resolved = OmegaConf.create(to_dict(Config(experiment="quickstart", seed=seed)))
    for key, value in (config or {}).items():
        OmegaConf.update(resolved, key, value)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(resolved))
    run = {"framework": framework, "group": group, "name": folder.name, "seed": seed, "started": f"{stamp}+00:00",
           "git": {"revision": "a" * 40, "dirty": False}, "versions": {}, "device": "a processor, 2 threads (cpu)",
           "precision": "bf16", "tf32": False, "parameters": 175258, "global_batch": 64, "steps_per_epoch": 20,
           "epochs": 4, "sizes": {"train": 1280, "val": 140, "test": len(LABELS)}, "classes": list("0123456789"),
           "fingerprints": {"data": "d0", "split": f"s{seed}", "test": "t0", "order": f"o{seed}",
                            "initial_weights": f"w{seed}"}}
    for key, value in (record or {}).items():
        run[key] = run[key] | value if isinstance(value, dict) else value
    (folder / "run.json").write_text(json.dumps(run))
    rows = [{"samples": 1280 * (epoch + 1), "epoch": epoch + 1, "time/train_s": 2.0 * (epoch + 1),
             "train/loss": 1 - high, "train/accuracy": high, "val/loss": 1.1 - high, "val/accuracy": high - 0.01,
             "lr": 0.05, "perf/images_per_second": 640.0, "perf/epoch_seconds": 2.0, "perf/peak_memory_gib": 1.0}
            for epoch, high in enumerate(EPOCHS)] if history is None else history
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        np.savez_compressed(folder / "predictions.npz", **predictions(wrong))
        speed = 2.0 if framework == "keras" else 1.0
        (folder / "result.json").write_text(json.dumps({
            "framework": framework, "group": group, "seed": seed, "test/accuracy": 1 - len(wrong) / len(LABELS),
            "test/loss": 0.1 * speed, "val/accuracy": 0.93, "val/loss": 0.16, "parameters": 175258, "best_epoch": 4,
            "perf/images_per_second": 640.0 / speed, "perf/epoch_seconds": 2.0 * speed,
            "perf/first_epoch_seconds": 5.0 * speed, "perf/peak_memory_gib": 1.5, "time/train_s": 8.0}))
    return folder


@pytest.fixture
def pair(tmp_path):
    return [make_run(tmp_path, "lightning", wrong=(0, 1)), make_run(tmp_path, "keras", wrong=(0,))]


def differences(folders, **options):
    return find_differences([read_run(folder) for folder in folders], **options)


# Reading

def test_last_row_wins_and_rows_are_in_order(tmp_path):
    rows = [{"samples": 200, "time/train_s": 2.0, "val/loss": 0.5},
            {"samples": 100, "time/train_s": 1.0, "val/loss": 0.9},
            {"samples": 200, "time/train_s": 2.0, "train/loss_step": 7.0},
            {"samples": 200, "time/train_s": 3.0, "val/loss": 0.4}]
    run = read_run(make_run(tmp_path, history=rows))
    samples, seconds, values = run.get_curve("val/loss")
    assert (samples.tolist(), seconds.tolist(), values.tolist()) == ([100, 200], [1, 3], [0.9, 0.4])
    assert run.get_curve("train/loss_step")[2].tolist() == [7.0]


def test_line_that_a_kill_cut_off_is_passed_over(pair):
    with (pair[0] / "metrics.jsonl").open("a") as file:
        file.write('{"samples": 6400, "val/lo')
    assert len(read_run(pair[0]).history) == len(EPOCHS)


@pytest.mark.parametrize("line", ['{"samples": 64, "val/lo', "[]", '{"epoch": 1}',
                                  '{"samples": 1, "time/train_s": 1, "val/loss": "x"}'])
def test_damaged_line_is_named(pair, line):
    with (pair[0] / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 5 "):
        read_run(pair[0])


def test_config_of_another_machine_is_read(tmp_path):
    """Its data set's folder need not exist here."""
    assert read_run(make_run(tmp_path, config={"dataset.root": "/nowhere"})).config["dataset.root"] == "/nowhere"


def test_labels_are_the_shortest_that_tell_runs_apart(tmp_path):
    first = read_run(make_run(tmp_path, "lightning"))
    keras = read_run(make_run(tmp_path, "keras"))
    later = read_run(make_run(tmp_path, "lightning", stamp="20260101-130000"))
    seed1 = read_run(make_run(tmp_path, "lightning", seed=1))
    assert label_runs([first, keras]) == ["lightning", "keras"]
    assert label_runs([first, seed1]) == ["lightning seed 0", "lightning seed 1"]
    assert label_runs([first, later]) == [first.name, later.name]


# Fairness gate

def test_same_experiment(pair):
    assert differences(pair) == []


@pytest.mark.parametrize(("key", "value"), [
    ("output_dir", "elsewhere"), ("resume", "auto"), ("tracking.mode", "disabled"), ("tracking.tags", ["x"]),
    ("hardware.workers", 3), ("hardware.threads", 1), ("debug.profile", True), ("dataset.root", "/data"),
    ("model.gradient_checkpointing", True), ("hardware.devices", 2), ("hardware.num_nodes", 2),
    ("hardware.strategy", "data_parallel"), ("hardware.steps_per_execution", 5), ("train.checkpoint_every_steps", 7)])
def test_incidental_keys_do_not_matter(tmp_path, key, value):
    assert differences([make_run(tmp_path), make_run(tmp_path, "keras", config={key: value})]) == []


@pytest.mark.parametrize(("key", "value", "line"), [
    ("optimizer.lr", 0.1, "optimizer.lr: lightning=0.02 keras=0.1"),
    ("hardware.precision", "fp32", "hardware.precision: lightning=auto keras=fp32"),
    ("augment.flip", True, "augment.flip: lightning=false keras=true"),
    ("init_from", "x.safetensors", "init_from: lightning='' keras=x.safetensors"),
    ("debug.limit_batches", 2, "debug.limit_batches: lightning=0 keras=2")])
def test_config_decides(tmp_path, key, value, line):
    assert differences([make_run(tmp_path), make_run(tmp_path, "keras", config={key: value})]) == [line]


@pytest.mark.parametrize(("record", "line"), [
    *(({"fingerprints": {name: "other"}}, f"fingerprints.{name}: lightning={ours} keras=other") for name, ours in
      (("data", "d0"), ("split", "s0"), ("test", "t0"), ("order", "o0"), ("initial_weights", "w0"))),
    ({"precision": "fp32"}, "precision: lightning=bf16 keras=fp32"),
    ({"tf32": True}, "tf32: lightning=false keras=true"),
    ({"device": "a GPU"}, "device: lightning=a processor, 2 threads (cpu) keras=a GPU"),
    ({"global_batch": 32}, "global_batch: lightning=64 keras=32"),
    ({"steps_per_epoch": 21}, "steps_per_epoch: lightning=20 keras=21"),
    ({"epochs": 5}, "epochs: lightning=4 keras=5"),
    ({"sizes": {"test": 49}}, "sizes.test: lightning=50 keras=49"),
    ({"classes": ["cat"]}, "classes: lightning=[10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9] keras=[1: cat]")])
def test_record_decides(tmp_path, record, line):
    assert differences([make_run(tmp_path), make_run(tmp_path, "keras", record=record)]) == [line]


def test_what_nobody_recorded_does_not_agree(tmp_path):
    folders = [make_run(tmp_path, framework, record={"fingerprints": {"order": None}})
               for framework in ("lightning", "keras")]
    assert differences(folders) == ["fingerprints.order: not recorded, so nobody can say that it agrees"]


def test_other_test_images_are_another_experiment(pair):
    np.savez_compressed(pair[1] / "predictions.npz", **predictions((0,), index=np.arange(50)[::-1]))
    (line,) = differences(pair)
    assert line.startswith("predictions (index and label): lightning=")


def test_unfinished_run_can_be_the_same_experiment(tmp_path):
    assert differences([make_run(tmp_path), make_run(tmp_path, "keras", finished=False)]) == []


def test_seeds_differ_unless_runs_pair_by_seed(tmp_path):
    folders = [make_run(tmp_path, framework, seed) for seed in (0, 1) for framework in ("lightning", "keras")]
    assert [line.partition(":")[0] for line in differences(folders)] == [
        "seed", "fingerprints.split", "fingerprints.order", "fingerprints.initial_weights"]
    assert differences(folders, up_to_seed=True) == []


def test_pairs_are_held_to_their_own_seed(tmp_path):
    folders = [make_run(tmp_path, framework, seed,
                        record={"fingerprints": {"order": "o0"}} if (framework, seed) == ("keras", 1) else None)
               for seed in (0, 1) for framework in ("lightning", "keras")]
    assert differences(folders, up_to_seed=True) == ["seed 1: fingerprints.order: lightning=o1 keras=o0"]


def test_runs_of_one_sibling_are_told_by_name(tmp_path):
    folders = [make_run(tmp_path), make_run(tmp_path, stamp="20260101-130000", config={"optimizer.lr": 0.1})]
    assert differences(folders) == [f"optimizer.lr: 0.02 in {folders[0].name}; 0.1 in {folders[1].name}"]


# Table, picture, page

def row(table, title):
    return next(line for line in table.rows if line[0] == title)


def test_table_of_a_pair(pair):
    table = compare_runs(pair[::-1]).blocks[0]  # given as keras, lightning: the columns are the other way round
    assert table.header == ["", "lightning", "keras", "keras ÷ lightning"]
    assert [row(table, title)[1:] for title in ("test accuracy", "test loss", "first epoch, seconds",
                                                "images per second", "parameters", "precision")] == [
        ["96.00 %", "98.00 %", "+2.00 points"], ["0.1000", "0.2000", "2.000"], ["5.00", "10.00", "2.000"],
        ["640", "320", "0.500"], ["175,258", "175,258", "same"], ["bf16", "bf16", "same"]]


def test_files_and_verdict(pair, tmp_path):
    comparison = compare_runs(pair)
    assert comparison.verdict == "same experiment"
    assert comparison.picture.parent == comparison.page.parent == tmp_path / "quickstart"
    assert comparison.picture.read_bytes().startswith(b"\x89PNG")
    page = comparison.page.read_text()
    assert "# quickstart · digits · resnet18" in page
    assert "](comparison.png)" in page
    assert "| test accuracy | 96.00 % | 98.00 % | +2.00 points |" in page
    assert str(tmp_path) not in page


def test_other_experiment_is_labelled_so(tmp_path):
    folders = [make_run(tmp_path), make_run(tmp_path, "keras", config={"optimizer.lr": 0.1})]
    comparison = compare_runs(folders, tmp_path / "out")
    line = "optimizer.lr: lightning=0.02 keras=0.1"
    assert comparison.verdict == f"NOT the same experiment: {line}"
    assert "**NOT the same experiment.**" in comparison.page.read_text()
    assert f"- `{line}`" in comparison.page.read_text()
    assert f"NOT the same experiment. What differs:\n  {line}" in format_text(comparison)


def test_unfinished_run_has_dashes_and_is_told(tmp_path):
    comparison = compare_runs([make_run(tmp_path), make_run(tmp_path, "keras", finished=False)])
    assert row(comparison.blocks[0], "test accuracy")[1:] == ["98.00 %", "-", "-"]
    assert row(comparison.blocks[0], "parameters")[1:] == ["175,258", "175,258", "same"]
    assert "keras is unfinished: its curves end early and it has no scores." in comparison.blocks


def test_run_without_any_row_is_drawn(tmp_path):
    assert compare_runs([make_run(tmp_path, finished=False, history=[])]).picture.is_file()


def test_missing_value_is_a_dash(pair):
    content = json.loads((pair[0] / "result.json").read_text())
    (pair[0] / "result.json").write_text(json.dumps(content | {"perf/peak_memory_gib": None}))
    assert row(compare_runs(pair).blocks[0], "peak memory, GiB")[1:] == ["-", "1.50", "-"]


@pytest.mark.parametrize("count", [2, 3, 20])
def test_text_fits_a_terminal(tmp_path, count):
    device = {"device": "Intel(R) Xeon(R) Platinum 8581C CPU @ 2.10GHz, 2 threads (cpu)"}
    folders = [make_run(tmp_path, ("lightning", "keras")[number % 2], number // 2, record=device)
               for number in range(count)]
    told = format_text(compare_runs(folders, tmp_path))
    assert max(map(len, told.partition("\npicture: ")[0].splitlines())) <= 100
    assert "8581C" in told
    if count == 20:
        assert "keras seed 9" in told


def test_runs_of_other_revisions_are_told(tmp_path):
    folders = [make_run(tmp_path), make_run(tmp_path, "keras", record={"git": {"revision": "b" * 40}})]
    comparison = compare_runs(folders)
    assert comparison.differences == []
    assert any("different revisions" in block for block in comparison.blocks if isinstance(block, str))


def test_runs_on_other_numbers_of_devices_are_told(tmp_path):
    folders = [make_run(tmp_path, record={"devices": 1}), make_run(tmp_path, "keras", record={"devices": 2})]
    comparison = compare_runs(folders)
    assert comparison.differences == []
    assert "Speed and memory are of different numbers of devices (lightning=1 keras=2)." in comparison.blocks


def test_where_devices_normalise_their_own_shares_their_number_decides(tmp_path):
    folders = [make_run(tmp_path, framework, config={"hardware.sync_batchnorm": False}, record={"devices": devices})
               for framework, devices in (("lightning", 1), ("keras", 2))]
    assert differences(folders) == ["devices: lightning=1 keras=2"]


# Seeds

def test_seeds_by_hand(tmp_path):
    # 50 images; errors of lightning 1, 2, 3 and of keras 2, 4, 6, which contain lightning's: differences of −1, −2, −3
    # images, −2, −4 and −6 points. Mean −4, std 2, half width 4.30265 * 2 / sqrt(3) = 4.97 points.
    folders = [make_run(tmp_path, framework, seed, wrong=tuple(range((seed + 1) * times)))
               for framework, times in (("lightning", 1), ("keras", 2)) for seed in range(3)]
    comparison = compare_runs(folders, seeds=True)
    assert comparison.verdict == "same experiment up to the seed (3 seeds)"
    summary, images = (block for block in comparison.blocks[1:] if not isinstance(block, str))
    assert summary.rows == [["lightning", "3", "96.00 %", "2.00 %", "94.00 % .. 98.00 %"],
                            ["keras", "3", "92.00 %", "4.00 %", "88.00 % .. 96.00 %"]]
    # Exact p of 3 against 0 discordant images: 2 / 2**3; pooled 6 against 0: 2 / 2**6.
    assert images.rows == [["0", "50", "1", "0", "2.00 %", "1"], ["1", "50", "2", "0", "4.00 %", "0.5"],
                           ["2", "50", "3", "0", "6.00 %", "0.25"], ["pooled", "150", "6", "0", "4.00 %", "0.0312"]]
    said = " ".join(block for block in comparison.blocks if isinstance(block, str))
    assert ("over 3 seeds: −4.00 points; 95 % confidence interval (Student t) −8.97 points to +0.97 points." in said)
    assert "0 lies in the interval" in said
    assert "real with these 3 seeds is 4.97 points" in said
    assert said.count("find with 80 % probability") == 1
    assert "0 lies in the interval" in comparison.page.read_text()


def test_one_seed_has_no_interval(pair):
    said = " ".join(block for block in compare_runs(pair, seeds=True).blocks if isinstance(block, str))
    assert "in the one paired seed (0): +2.00 points." in said
    assert "there is no confidence interval" in said
    assert "nan" not in said


def test_newest_finished_run_of_a_seed_counts(tmp_path):
    old, new = (make_run(tmp_path, "lightning", stamp=stamp) for stamp in ("20260101-120000", "20260102-120000"))
    unfinished = make_run(tmp_path, "lightning", stamp="20260103-120000", finished=False)
    keras = make_run(tmp_path, "keras")
    comparison = compare_runs([new, old, unfinished, keras], seeds=True)
    assert [run.folder for run in comparison.runs] == [new, keras]
    assert "Left out: 2 unfinished or older runs of a seed." in comparison.blocks


def test_seed_without_partner_is_told(tmp_path):
    comparison = compare_runs([make_run(tmp_path), make_run(tmp_path, seed=3), make_run(tmp_path, "keras")], seeds=True)
    assert any(str(block).endswith("nothing pairs with them: 3.") for block in comparison.blocks)


@pytest.mark.parametrize("name", ["index", "label"])
def test_predictions_for_other_images_are_refused(pair, name):
    arrays = predictions((0,))
    arrays[name] = np.roll(arrays[name], 1)
    np.savez_compressed(pair[1] / "predictions.npz", **arrays)
    with pytest.raises(UserError, match=f"{pair[0].name} and {pair[1].name} differ in '{name}'"):
        compare_runs(pair, seeds=True)


# Command line

def test_newest_finished_run_of_each_sibling_in_the_newest_group(tmp_path, capsys):
    make_run(tmp_path, "lightning", group="older", stamp="20250101-120000")
    make_run(tmp_path, "lightning", stamp="20260101-120000")
    newest = make_run(tmp_path, "lightning", stamp="20260102-120000")
    make_run(tmp_path, "lightning", stamp="20260103-120000", finished=False)
    keras = make_run(tmp_path, "keras")
    assert main(["--output-dir", str(tmp_path)]) == 0
    page = (tmp_path / "quickstart" / "comparison.md").read_text()
    assert page.endswith(f"Runs:\n\n- `quickstart/{newest.name}`\n- `quickstart/{keras.name}`\n")
    out = capsys.readouterr().out
    assert "same experiment" in out
    assert "comparison.png" in out
    assert main(["--output-dir", str(tmp_path), "--group", "older", "--out", str(tmp_path / "out")]) == 0
    assert "no run of keras" in capsys.readouterr().out
    assert (tmp_path / "out" / "comparison.md").is_file()


def test_where_a_sibling_is_alone_nothing_is_said_of_the_other(tmp_path, capsys, here):
    here("keras")
    for seed in (0, 1):
        keras = make_run(tmp_path, "keras", seed=seed)
    make_run(tmp_path, "lightning", stamp="20260102-120000")  # of before its folder was deleted
    assert main(["--output-dir", str(tmp_path)]) == 0
    assert (tmp_path / "quickstart" / "comparison.md").read_text().endswith(f"Runs:\n\n- `quickstart/{keras.name}`\n")
    assert main(["--output-dir", str(tmp_path), "--seeds"]) == 0
    out = capsys.readouterr().out
    assert "one run, nothing to compare it with" in out
    assert "same experiment up to the seed (2 seeds)" in out
    assert "lightning" not in out
    assert "both siblings" not in out


@pytest.mark.parametrize(("arguments", "said"), [
    (["--output-dir", "{root}/none"], "is not a folder; train first with: make train"),
    (["--output-dir", "{root}/quickstart"], "no finished run in"),
    (["--output-dir", "{root}", "--group", "quickstar"], "did you mean 'quickstart'?"),
    (["--group", "x", "{run}"], "drop one of the two"),
    (["{root}/missing"], "is not a run folder: there is no such folder"),
    (["{root}"], "is not a run folder: it has no config.yaml"),
    (["{run}", "--out", "{run}/run.json"], "choose another folder with --out"),
    (["--sedes"], "unrecognized arguments: --sedes; see --help"),
    (["--group"], "expected one argument; see --help")])
def test_mistakes_are_one_line(pair, tmp_path, capsys, arguments, said):
    assert main([word.format(root=tmp_path, run=pair[0]) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error


@pytest.mark.parametrize(("name", "content", "said"), [
    ("result.json", b'{"test/accuracy": 0.9', "result.json: not valid JSON"),
    ("result.json", b'{"test/accuracy": "high"}', "test/accuracy is 'high'; expected a number"),
    ("result.json", b"[]", "holds list"), ("result.json", b"\xff\xfe", "result.json: not valid JSON"),
    ("run.json", b'{"framework": "jax"}', "framework is 'jax'; expected lightning or keras"),
    ("run.json", b"", "run.json: not valid JSON"), ("metrics.jsonl", b"{\n{}\n", "metrics.jsonl: line 1"),
    ("config.yaml", b"a: [", "config.yaml: not valid YAML"),
    ("predictions.npz", b"PK", "predictions.npz: cannot be read")])
def test_damaged_files_are_one_line(pair, capsys, name, content, said):
    (pair[1] / name).write_bytes(content)
    assert main([str(folder) for folder in pair]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error


def test_damaged_run_nobody_named_is_passed_over(pair, tmp_path, capsys):
    broken = make_run(tmp_path, "keras", stamp="20260105-120000")
    (broken / "run.json").write_text("{")
    assert main(["--output-dir", str(tmp_path)]) == 0
    assert f"passed over: {broken / 'run.json'}" in capsys.readouterr().err


def test_further_test_metrics_have_rows_of_their_own(pair):
    for folder, value in zip(pair, (0.75, 0.5), strict=True):
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(result | {"test/macro_f1": value, "test/margin": value}))
    (table, *_) = tabulate_facts([read_run(folder) for folder in pair])
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["test macro F1"] == ["75.00 %", "50.00 %", "−25.00 points"]
    assert rows["test margin"] == ["0.7500", "0.5000", "0.667"]


def test_a_run_from_before_a_key_was_there_had_its_default(pair):
    lines = (pair[0] / "config.yaml").read_text().splitlines()
    kept = [line for line in lines if line.strip().partition(":")[0] not in ("balance", "loss", "class_weights",
                                                                            "focal_gamma", "monitor_mode")]
    assert len(kept) == len(lines) - 5
    (pair[0] / "config.yaml").write_text("\n".join(kept))
    assert differences(pair) == []


def test_predictions_that_do_not_belong_together(pair):
    arrays = predictions((0,))
    np.savez_compressed(pair[0] / "predictions.npz", **arrays | {"label": LABELS[:-1]})
    with pytest.raises(UserError, match="do not belong together"):
        _ = read_run(pair[0]).predictions


def test_help_imports_nothing_heavy():
    """As a user starts it. matplotlib, scipy and OmegaConf take a second or more together."""
    code = ("import sys; from shared.compare.__main__ import main\n"
            "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
            "print(sorted({'matplotlib', 'scipy', 'omegaconf', 'torch', 'tensorflow'} & set(sys.modules)))")
    found = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
    assert "--seeds" in found.stdout
