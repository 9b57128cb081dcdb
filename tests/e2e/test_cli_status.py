"""What `drift status` and `drift explain` say of a service, and what they tell scripts by their exit status."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from rich.console import RenderableType

import documents
from background_loop import BackgroundLoop
from drift_cli import advice, explain, main, runs, service_page, sources, status, verdicts
from drift_cli.looking import LookError, OperatorSeen, OperatorTarget, ask_operator
from drift_cli.prospects import prospects
from drift_cli.verdicts import Verdict
from drift_operator.doors import plain
from drift_operator.doors.figures import ServiceFigures, TargetFigures
from drift_operator.doors.metrics import Metrics
from drift_operator.doors.pulse import Pulse
from drift_operator.driftservice import DriftService
from kept_figures import KeptFigures

NOW = datetime.datetime(2026, 1, 31, 12, 30, tzinfo=datetime.UTC)
SCALING = {"minReplicas": 1, "maxReplicas": 4}


def service(
    conditions: dict[str, tuple[str, str]] | None = None, spec: dict[str, Any] | None = None, **changes: Any
) -> DriftService:
    """On a cluster, Ready and kept but for the conditions: type -> status and reason."""
    document = documents.minimal(**(spec or {}))
    document["metadata"] |= {"namespace": "team-a", "generation": 3}
    told = {"Ready": ("True", "Serving"), "SLOMet": ("True", "Kept"), **(conditions or {})}
    document["status"] = {
        **documents.STATUS,
        "conditions": [
            {
                "type": kind,
                "status": truth,
                "reason": reason,
                "message": f"the message of {kind}",
                "lastTransitionTime": "2026-01-31T12:00:00Z",
            }
            for kind, (truth, reason) in told.items()
        ],
        **changes,
    }
    return sources.parse(document)


def words(shown: RenderableType, capsys: pytest.CaptureFixture[str]) -> str:
    """With single spaces, and lines that a wide page would not break."""
    console = status.console()
    console.print(shown)
    return " ".join(capsys.readouterr().out.split())


# verdicts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "changes", "verdict", "code"),
    [
        ({}, {}, Verdict.KEPT, 0),
        ({"SLOMet": ("Unknown", "NoRequests")}, {}, Verdict.QUIET, 0),
        ({"SLOMet": ("False", "Missed")}, {}, Verdict.BROKEN, 1),
        ({"Ready": ("False", "NoNodeReady")}, {}, Verdict.NOT_READY, 1),
        ({}, {"observedGeneration": 2}, Verdict.UNSEEN, 1),
    ],
    ids=lambda value: value.name if isinstance(value, Verdict) else "",
)
def test_a_verdict_and_its_exit_status(
    conditions: dict[str, tuple[str, str]], changes: dict[str, Any], verdict: Verdict, code: int
) -> None:
    found = service(conditions, **changes)
    assert (verdicts.judge(found), status.exit_code([found])) == (verdict, code)


def test_one_broken_promise_among_many_is_a_failure() -> None:
    assert status.exit_code([service(), service({"SLOMet": ("False", "Missed")}), service()]) == 1


def test_what_is_wrong_comes_before_what_is_only_going_on() -> None:
    found = service(
        {
            "Paused": ("True", "PausedByUser"),
            "Degraded": ("True", "PodFailing"),
            "Progressing": ("False", "Complete"),
            "MetricsAvailable": ("Unknown", "NoNodes"),
        }
    )
    assert [(each.condition.type, each.fault) for each in verdicts.concerns(found)] == [
        ("Degraded", True),
        ("Paused", False),
        ("MetricsAvailable", False),
    ]


def test_a_rollout_that_was_given_up_is_a_fault() -> None:
    (found,) = verdicts.concerns(service({"Progressing": ("False", "DeploymentFailed")}))
    assert found.fault


# the page ------------------------------------------------------------------------------------------------------


def test_a_page_tells_the_promise_and_how_it_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    shown = words(service_page.page(service(), NOW), capsys)
    assert "demo in namespace team-a: promise kept" in shown
    assert "first token 400 ms for 99 % 99.4 % 180 ms 390 ms 0.6 1200" in shown
    assert "every further token 80 ms for 99 % 100 % 31 ms 62 ms 0 1200" in shown
    assert "chat-7f9c-abcde ready 48/84 0.5 40 % 31 % taken" in shown
    assert "what is wrong" not in shown


def test_a_fault_comes_with_its_message_its_age_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    shown = words(service_page.page(service({"Degraded": ("True", "PodFailing")}), NOW), capsys)
    assert (
        "what is wrong: Degraded is True (PodFailing, for 30 min) the message of Degraded what to do: "
        in shown
    )


def test_the_last_decisions_are_told_with_their_reason(capsys: pytest.CaptureFixture[str]) -> None:
    decision = {
        "time": "2026-01-31T12:29:30Z",
        "lever": "replicas",
        "from": "2",
        "to": "3",
        "reason": "Pressure",
        "message": "pressure 0.91 at 12 requests/s is above 0.85",
    }
    shown = words(service_page.page(service(decisions=[decision]), NOW), capsys)
    assert "30 s ago replicas all 2 3 Pressure: pressure 0.91 at 12 requests/s is above 0.85" in shown


def test_a_service_that_no_operator_has_seen_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    document = documents.minimal()
    document["metadata"] |= {"namespace": "team-a", "generation": 1}
    shown = words(service_page.page(sources.parse(document), NOW), capsys)
    assert "not looked at yet" in shown
    assert "no operator has looked at it" in shown


def test_a_set_point_that_was_not_acknowledged_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    node = documents.STATUS["nodes"][0] | {"epochSent": 18}
    shown = words(service_page.page(service(nodes=[node]), NOW), capsys)
    assert "31 % waiting" in shown


def test_a_share_is_never_rounded_up_to_the_promise(capsys: pytest.CaptureFixture[str]) -> None:
    slo = {"ttft": {"attainment": 0.98999}}
    assert "98.99 %" in words(service_page.promise(service(slo=slo)), capsys)


def test_a_table_has_a_line_for_each_service(capsys: pytest.CaptureFixture[str]) -> None:
    broken = service({"SLOMet": ("False", "Missed"), "Degraded": ("True", "PodFailing")})
    shown = words(service_page.table([service(), broken]), capsys)
    assert "team-a demo promise kept 99.4 % 100 % 2/2 48-56 -" in shown
    assert "team-a demo promise broken 99.4 % 100 % 2/2 48-56 Missed, PodFailing" in shown


def test_every_advice_is_a_sentence_that_fits_a_page() -> None:
    assert all(len(text) < status.WIDTH and "\n" not in text for text in advice.ADVICE.values())


# explain -------------------------------------------------------------------------------------------------------


def texts(found: DriftService, seen: OperatorSeen | None = None) -> dict[str, str]:
    return {each.lever: each.text for each in prospects(found, seen)}


def test_paused_levers_have_nothing_ahead() -> None:
    assert set(texts(service(spec={"paused": True})).values()) == {"nothing: spec.paused is true"}


def test_a_fixed_number_of_nodes_is_moved_by_nobody() -> None:
    assert texts(service(spec={"replicas": 2}))["replicas"].startswith("nothing: spec.replicas says 2")


def test_the_band_is_told_with_the_operators_pressure() -> None:
    seen = OperatorSeen(pressure=1.04, age_s=1.0, unknown=None, slo={})
    text = texts(service(spec={"autoscaling": SCALING}), seen)["replicas"]
    assert text.startswith("pressure is 1.04; more nodes above 1.10, up to maxReplicas 4; one fewer when")


def test_another_autoscaler_decides_where_it_was_asked_to() -> None:
    text = texts(service(spec={"autoscaling": {**SCALING, "mode": "HPA"}}))["replicas"]
    assert text == "HPA decides, and aims at pressure 1"


@pytest.mark.parametrize(
    ("conditions", "start"),
    [
        ({"ScalingLimited": ("True", "AtMaximum")}, "the message of ScalingLimited"),
        (
            {"MetricsAvailable": ("False", "ReportsMissing")},
            "nothing before reports are back: the message of",
        ),
    ],
)
def test_what_keeps_the_number_of_nodes_is_told(conditions: dict[str, tuple[str, str]], start: str) -> None:
    assert texts(service(conditions, {"autoscaling": SCALING}))["replicas"].startswith(start)


@pytest.mark.parametrize(
    ("ttft", "tbt", "text"),
    [
        (1.0, 0.9, "decode gets more SMs"),
        (0.9, 1.0, "prefill gets more SMs"),
        (0.9, 0.9, "no split helps"),
        (1.0, 1.0, "neither half is missed"),
    ],
)
def test_the_split_follows_the_half_that_is_missed(ttft: float, tbt: float, text: str) -> None:
    slo = {"ttft": {"attainment": ttft}, "tbt": {"attainment": tbt}}
    assert text in texts(service(slo=slo))["split"]


def test_a_device_that_cannot_be_split_says_so() -> None:
    found = service({"SplitConverged": ("True", "DeviceCannotBeSplit")})
    assert texts(found)["split"] == "the message of SplitConverged"


def test_explain_tells_the_operators_figures(capsys: pytest.CaptureFixture[str]) -> None:
    seen = OperatorSeen(1.3, 2.0, None, {"ttft": OperatorTarget({"1m": 2.5, "10m": None})})
    shown = words(explain.explanation(service(), seen, NOW), capsys)
    assert "operator: measured 2 s ago, pressure 1.3 TTFT burns 2.5 over 1m, - over 10m" in shown


@contextlib.contextmanager
def door(kept: KeptFigures) -> Iterator[str]:
    """The URL of the plain door, two seconds after the figures were measured."""
    app = plain.create_app(kept, Metrics(kept), Pulse(), lambda: None, clock=lambda: 12.0)
    runner = web.AppRunner(app, access_log=None)
    with BackgroundLoop("operator") as loop:

        async def start() -> None:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()

        loop.run(start())
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        loop.run(runner.cleanup())


@pytest.fixture
def operator_url() -> Iterator[str]:
    """Of an operator that measured team-a/demo a moment ago."""
    figures = ServiceFigures(
        "team-a", "demo", 10.0, 1.3, 3, 2, TargetFigures(400, 0.99, 0.97, burn_rates={"1m": 3.0})
    )
    with door(KeptFigures(figures)) as url:
        yield url


def test_an_operator_is_asked_for_what_the_status_lacks(operator_url: str) -> None:
    seen = ask_operator(operator_url, "team-a", "demo")
    assert (seen.pressure, seen.age_s, seen.unknown) == (1.3, 2.0, None)
    assert seen.slo["ttft"].burn_rates == {"1m": 3.0}


def test_an_operator_that_does_not_know_the_service_says_so(operator_url: str) -> None:
    with pytest.raises(LookError, match="this operator knows no DriftService team-a/nobody"):
        ask_operator(operator_url, "team-a", "nobody")


def test_an_operators_address_that_is_none_is_told_with_its_option() -> None:
    with pytest.raises(LookError, match="--operator-url: operator:8080 is not of the form"):
        ask_operator("operator:8080", "team-a", "demo")


def test_data_has_what_the_page_says() -> None:
    found = explain.document(service({"Degraded": ("True", "PodFailing")}), None)
    assert (found["kept"], found["verdict"]) == (True, "KEPT")
    assert found["concerns"] == [{"fault": True, "type": "Degraded", "reason": "PodFailing"}]
    assert found["decisions"][0]["lever"] == "split"
    assert msgspec.json.decode(msgspec.json.encode(found))["next"].keys() == {"split", "weight", "replicas"}


# this machine --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def run_here(environ: dict[str, str], *figures: ServiceFigures) -> Iterator[None]:
    """A `drift up` of demo whose door tells these figures."""
    with door(KeptFigures(*figures)) as url:
        known = runs.Run("demo", "http://127.0.0.1:1", url, "token", documents.minimal(autoscaling=SCALING))
        with runs.published(known, environ):
            yield


def here(nowhere: Path) -> dict[str, str]:
    return {"XDG_RUNTIME_DIR": str(nowhere)}


def figured() -> ServiceFigures:
    told = sources.parse(service().model_dump(mode="json", by_alias=True, exclude_none=True)).status
    return ServiceFigures("local", "demo", 10.0, 1.3, 3, 2, status=told)


def test_a_run_on_this_machine_tells_its_own_status(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_here(here(nowhere), figured()):
        assert main.main(["status", "--local"]) == status.KEPT
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith("demo on this machine: promise kept")
    assert "chat-7f9c-abcde ready 48/84" in shown


def test_decisions_of_a_run_on_this_machine_are_explained(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_here(here(nowhere), figured()):
        assert main.main(["explain", "--local", "demo"]) == status.KEPT
    shown = " ".join(capsys.readouterr().out.split())
    assert "the run: measured 2 s ago, pressure 1.3" in shown
    assert "split" in shown.partition("decisions, the newest first:")[2]
    assert "pressure is 1.30; more nodes above 1.10, up to maxReplicas 4" in shown


def test_a_run_that_just_begins_has_nothing_to_tell_yet(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_here(here(nowhere)):
        assert main.main(["status", "--local"]) == status.NOT_KEPT
    assert "demo on this machine: not looked at yet" in capsys.readouterr().out


def test_a_run_on_this_machine_has_no_other_operator(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_here(here(nowhere), figured()):
        assert main.main(["explain", "--local", "--operator-url", "http://x"]) == status.NOTHING_TO_SEE
    assert "--operator-url: a run on this machine is asked by itself" in capsys.readouterr().err


def test_another_autoscaler_is_a_clusters() -> None:
    found = service(spec={"autoscaling": {**SCALING, "mode": "HPA"}})
    local = found.model_copy(update={"metadata": found.metadata.model_copy(update={"namespace": None})})
    assert texts(local)["replicas"].startswith("nothing: HPA scales on a cluster only")


# where services are looked for ---------------------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a kubeconfig and without a run."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["status"], "no `drift up` of yours runs on this machine"),
        (["explain", "chat"], "no `drift up` of chat of yours runs on this machine"),
    ],
)
def test_without_a_kubeconfig_this_machine_is_meant(
    arguments: list[str], line: str, nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(arguments) == status.NOTHING_TO_SEE
    assert capsys.readouterr().err == f"drift: {line}\n"


@pytest.mark.parametrize("content", [None, "{}", "no: [yaml", json.dumps({"current-context": "gone"})])
def test_a_kubeconfig_that_cannot_be_used_is_one_line(
    content: str | None, nowhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = nowhere / "kubeconfig"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(file))
    assert main.main(["status"]) == status.NOTHING_TO_SEE
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("drift: the kubeconfig can't be used: ")


def test_without_the_client_a_line_says_what_to_install(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main.main(["status", "-n", "team-a"]) == status.NOTHING_TO_SEE
    assert "pip install 'drift-serve[operator]'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["chat", "-A"], ["-A", "--local"], ["--watch", "--json"], ["--watch"]])
def test_options_that_exclude_each_other_are_refused(
    arguments: list[str], nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["status", *arguments]) == status.NOTHING_TO_SEE
    assert capsys.readouterr().err.startswith("drift status: --")


def test_fields_of_a_newer_operator_are_left_out() -> None:
    document = documents.minimal(tomorrow=1)
    document["status"] = {"replicas": 1, "tomorrow": {"more": 1}}
    assert sources.parse(document).status is not None


def test_a_service_that_cannot_be_read_names_the_field() -> None:
    with pytest.raises(LookError, match=r"DriftService demo can't be read: spec\.slo\.tbt\.targetMs: "):
        sources.parse(documents.minimal(slo={"tbt": {"targetMs": 0}}))
