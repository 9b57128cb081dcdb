"""Whether there is tracing, as options and OpenTelemetry's variables say."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from drift_engine import options
from drift_engine.errors import OptionsError
from drift_engine.tracing.options import TracingOptions, Wanted, wanted

BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"
WHOLE = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
NONE = TracingOptions()
ASKED = TracingOptions("http://collector:4318", 0.5, "mine")


def test_nobody_who_says_nothing_is_traced() -> None:
    assert wanted(NONE, {}) is None
    assert wanted(NONE, {BASE: "  "}) is None


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("https://collector/", "https://collector/v1/traces"),
        ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
        ("http://[::1]:4318/otlp", "http://[::1]:4318/otlp/v1/traces"),
    ],
)
def test_an_address_gets_the_path_of_traces_where_it_lacks_it(endpoint: str, url: str) -> None:
    assert wanted(TracingOptions(endpoint), {}) == Wanted(url, None, "")


def test_the_variables_of_the_specification_switch_it_on() -> None:
    assert wanted(NONE, {BASE: "http://a:4318/"}) == Wanted("http://a:4318/v1/traces", None, "")
    assert wanted(NONE, {BASE: "http://a:4318", WHOLE: "http://b/own"}) == Wanted("http://b/own", None, "")


def test_options_come_before_variables() -> None:
    assert wanted(ASKED, {BASE: "http://a:4318"}) == Wanted("http://collector:4318/v1/traces", 0.5, "mine")


@pytest.mark.parametrize("asked", [NONE, ASKED])
def test_the_variable_that_switches_everything_off_does(asked: TracingOptions) -> None:
    assert wanted(asked, {BASE: "http://a:4318", "OTEL_SDK_DISABLED": "True"}) is None


def test_an_environment_without_an_exporter_of_traces_has_none() -> None:
    assert wanted(NONE, {BASE: "http://a:4318", "OTEL_TRACES_EXPORTER": "none"}) is None


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({BASE: "collector:4317"}, f"{BASE}: 'collector:4317' is not of the form http://HOST:PORT"),
        ({WHOLE: "http://"}, f"{WHOLE}: 'http://' is not of the form"),
        ({BASE: "http://a:99999"}, f"{BASE}: is no URL"),
        (
            {BASE: "http://a:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' is not spoken here; http/protobuf is",
        ),
    ],
)
def test_a_variable_that_can_not_be_followed_is_named(environ: dict[str, str], told: str) -> None:
    with pytest.raises(OptionsError) as raised:
        wanted(NONE, environ)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("tracing", "told"),
    [
        ({"endpoint": "localhost"}, "'localhost' is not of the form http://HOST:PORT or https://HOST:PORT"),
        ({"endpoint": "http://a:4318", "sampling": 1.5}, "`$.tracing.sampling`"),
    ],
)
def test_an_option_that_can_not_be_followed_is_named(tracing: dict[str, object], told: str) -> None:
    with pytest.raises(OptionsError) as raised:
        options.parse(json.dumps({"model": "m", "tracing": tracing}))
    assert told in str(raised.value)
    assert "tracing" in str(raised.value)


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(OptionsError) as raised:
        wanted(NONE, {BASE: "http://me:secret@collector"})
    assert "OTEL_EXPORTER_OTLP_HEADERS" in str(raised.value)
    assert "secret@" not in str(raised.value)


PROGRAM = """
import sys
from drift_engine.tracing import starting
from drift_engine.tracing.options import TracingOptions
import drift_engine.node.process, drift_router.process
assert starting.start(TracingOptions(), "test") is None
print(sorted(name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))))
"""


def test_without_tracing_nothing_of_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BASE, raising=False)
    monkeypatch.delenv(WHOLE, raising=False)
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True
    )
    assert said.stdout.strip() == "[]"
