"""Saving the dashboard at a stand-in for W&B's server, and faults of it. W&B's own service was not asked."""

import json
import subprocess
import sys
import time

import pytest

from tests.shared.run_folders import make_run
from tests.wandb_faults import DASHBOARD_ANSWERS, Server, environment

pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed; the extra dashboard brings it")

SCRIPT = """
import shared.compare.dashboard.saving, shared.training.trackers.wandb
shared.compare.dashboard.saving.TIMEOUT = shared.training.trackers.wandb.TIMEOUT = 2
from shared.compare.dashboard.command import main
from shared.machine.ending import report_errors
report_errors(main)
"""


@pytest.fixture
def save(nobody, tmp_path):
    """The command, in a process of its own, with a key for `server`: what became of it."""
    make_run(tmp_path / "runs")

    def run(server, *words, **variables):
        return subprocess.run([sys.executable, "-c", SCRIPT, *words], cwd=tmp_path, capture_output=True, text=True,
                              timeout=60, env=environment(tmp_path, server, **variables))
    return run


def read_requests(server, name):
    """The variables of each query in which `name` occurs."""
    return [request["variables"] for request in map(json.loads, filter(None, server.bodies))
            if name in request.get("query", "")]


def test_with_a_key_both_are_saved_and_their_addresses_printed(save, tmp_path):
    with Server("answers", DASHBOARD_ANSWERS) as server:
        done = save(server)
    assert (done.returncode, done.stderr) == (0, "")
    project = f"{server.address}/me/lightning-keras-template"
    assert done.stdout.splitlines()[1:] == [
        f"report:        {project}/reports/Lightning-and-Keras-side-by-side--Vmlldzo3",
        f"workspace:     {project}?nw=seven"]
    written = json.loads((tmp_path / "runs" / "dashboard.json").read_text())
    sent = {request["type"]: request for request in read_requests(server, "upsertView")}
    assert sent.keys() == {"runs", "project-view"}
    for kind, name in (("runs", "report"), ("project-view", "workspace")):
        assert (sent[kind]["entityName"], sent[kind]["projectName"]) == ("me", written[name]["project"])
        assert drop_identities(json.loads(sent[kind]["spec"])) == drop_identities(written[name]["spec"])


def drop_identities(content):
    """A specification without the names that W&B's package draws at random for panels and sets of runs."""
    if isinstance(content, list):
        return [drop_identities(part) for part in content]
    if isinstance(content, dict):
        return {name: sorted(part.values()) if name == "customRunColors" else drop_identities(part)
                for name, part in content.items() if name not in ("id", "__id__")}
    return content


@pytest.mark.parametrize(("words", "variables"), [(["--entity", "team"], {}), ([], {"WANDB_ENTITY": "team"})])
def test_the_entity_may_be_named(save, words, variables):
    with Server("answers", DASHBOARD_ANSWERS) as server:
        done = save(server, *words, "--project", "other", **variables)
    assert done.returncode == 0, done.stderr
    assert {(request["entityName"], request["projectName"]) for request in read_requests(server, "upsertView")} == {
        ("team", "other")}


def test_a_key_without_a_default_entity_is_told(save):
    with Server("answers", DASHBOARD_ANSWERS | {"GetDefaultEntity": {"viewer": {"id": "v", "entity": None}}}) as server:
        done = save(server)
    assert (done.returncode, done.stderr) == (
        2, "error: W&B knows no user or team for this API key; name one with --entity\n")
    assert not server.sent("upsertView")


@pytest.mark.parametrize("fault", ["refuses", "hangs", "fails"])
def test_a_server_out_of_reach_is_told_in_one_line_and_the_specification_stays(save, tmp_path, fault):
    with Server(fault, DASHBOARD_ANSWERS) as server:
        before = time.perf_counter()
        done = save(server)
    assert time.perf_counter() - before < 30
    assert done.returncode == 2
    assert done.stderr.startswith("error: W&B failed with your account (")
    assert done.stderr.count("\n") == 1
    assert json.loads((tmp_path / "runs" / "dashboard.json").read_text()).keys() == {"workspace", "report"}


def test_what_was_saved_before_a_failure_is_told(save):
    class Full(Server):
        def answer(self, path, body):
            if b"UpsertView2" in body:  # the workspace's, as its package calls it
                return {"data": None, "errors": [{"message": "no more views\nfor you"}]}
            return super().answer(path, body)
    with Full("answers", DASHBOARD_ANSWERS) as server:
        done = save(server)
    assert done.returncode == 2
    assert done.stderr.startswith("error: W&B failed with the workspace (")
    assert f"the report is saved: {server.address}/me/" in done.stderr
    assert done.stderr.count("\n") == 1
