"""The start of tracing: the only place that loads OpenTelemetry, which costs a fifth of a second and 10 MB."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from typing import TYPE_CHECKING

from drift_engine.errors import OptionsError
from drift_engine.tracing import options
from drift_engine.tracing.options import TracingOptions, Wanted
from drift_engine.tracing.spans import Outcome
from drift_engine.version import drift_version

if TYPE_CHECKING:
    from drift_engine.tracing.recording import Recorder

log = logging.getLogger(__name__)

MISSING = "tracing is not installed; install it with: pip install 'drift-serve[tracing]'"


def fresh_counts() -> dict[str, int]:
    """What became of spans, before there was one."""
    return dict.fromkeys(Outcome, 0)


def check(asked: TracingOptions) -> Wanted | None:
    """What is wanted, as far as it can be had. Raises OptionsError."""
    wanted = options.wanted(asked, os.environ)
    if wanted is None or installed():
        return wanted
    if asked.endpoint:
        raise OptionsError(MISSING)
    log.warning(MISSING)  # a variable that is meant for other programs may be about
    return None


def start(
    asked: TracingOptions, service: str, instance: str = "", counts: dict[str, int] | None = None
) -> Recorder | None:
    """None: nobody wants traces. `service` is what the process is called where nobody says, `instance` its own name;
    `counts` is written to (`fresh_counts`). Raises OptionsError.
    """
    wanted = check(asked)
    if wanted is None:
        return None
    from drift_engine.tracing.exporting import Exporting
    from drift_engine.tracing.recording import Recorder

    written = fresh_counts() if counts is None else counts
    attributes = {
        "service.name": service,
        "service.version": drift_version(),
        "service.instance.id": instance or f"{socket.gethostname()}-{os.getpid()}",
    }
    return Recorder(Exporting(wanted, attributes, written), written)


def installed() -> bool:
    """Not only the API, which other packages need, too."""
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except ModuleNotFoundError:
        return False
