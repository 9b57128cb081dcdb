"""Whether there is tracing and where it goes: from the options, else from OpenTelemetry's own variables."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import msgspec

from drift_engine.errors import OptionsError

PATH = "/v1/traces"
"""Of an OTLP/HTTP receiver."""

PROTOCOL = "http/protobuf"
"""The one that is spoken, and the specification's default."""


class TracingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Spans for an OpenTelemetry collector."""

    endpoint: str = ""
    """Address of an OTLP/HTTP receiver, such as http://collector:4318; `/v1/traces` is added where it is not there.
    Empty: as `OTEL_EXPORTER_OTLP_ENDPOINT` says; there is no tracing where that is empty, too."""
    sampling: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """Share of requests that are traced, of those whose client does not say it by its own trace. None: as
    `OTEL_TRACES_SAMPLER` says; all where it says nothing."""
    service: str = ""
    """Name of the service in its traces; empty: as `OTEL_SERVICE_NAME` says, else what kind of process it is."""

    def __post_init__(self) -> None:
        if self.endpoint and (problem := problem_of(self.endpoint)) is not None:
            raise ValueError(f"endpoint: {problem}")


class Wanted(NamedTuple):
    """There is tracing."""

    url: str
    sampling: float | None
    service: str


def wanted(options: TracingOptions, environ: Mapping[str, str]) -> Wanted | None:
    """None: there is no tracing. Raises OptionsError that names the variable."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if options.endpoint:
        endpoint = options.endpoint.rstrip("/")
        url = endpoint if endpoint.endswith(PATH) else endpoint + PATH
        return Wanted(url, options.sampling, options.service)
    if environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none":
        return None
    for variable, path in (("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""), ("OTEL_EXPORTER_OTLP_ENDPOINT", PATH)):
        if endpoint := environ.get(variable, "").strip():
            if (problem := problem_of(endpoint)) is not None:
                raise OptionsError(f"{variable}: {problem}")
            _check_protocol(environ)
            url = endpoint.rstrip("/") + path if path else endpoint
            return Wanted(url, options.sampling, options.service)
    return None


def problem_of(endpoint: str) -> str | None:
    """What is wrong with it. It is not shown where it may hold a password."""
    try:
        parts = urllib.parse.urlsplit(endpoint)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return "is no URL"
    if parts.username is not None or parts.password is not None:
        return "must not hold a password, which everybody can read there; see OTEL_EXPORTER_OTLP_HEADERS"
    if parts.scheme not in ("http", "https") or not named:
        return f"{endpoint[:80]!r} is not of the form http://HOST:PORT or https://HOST:PORT"
    return None


def _check_protocol(environ: Mapping[str, str]) -> None:
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environ.get(variable, "").strip():
            if protocol != PROTOCOL:
                raise OptionsError(f"{variable}: {protocol[:40]!r} is not spoken here; {PROTOCOL} is")
            return
