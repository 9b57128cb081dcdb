"""A question to the simulator and its answer, in the terms of `drift bench`'s results."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from drift_engine import wire
from drift_engine.bench import metrics
from drift_engine.bench.records import LogWriter, RequestRecord
from drift_engine.bench.results import Result, Slo, Sweep, Tried, Workload
from drift_engine.bench.traces import Arrival
from drift_engine.hardware import profiles, shapes
from drift_engine.latency.snapshots import Snapshot
from drift_engine.launches import KEPT_SPANS, Span
from drift_engine.simulation import dispatching, nodes, specs, sweeping
from drift_engine.simulation.handing_on import Link
from drift_engine.simulation.nodes import NodeSpec
from drift_engine.simulation.running import Simulation
from drift_engine.version import drift_version

MODEL_HELP = f"{', '.join(shapes.names())}, or a Hugging Face model's folder or config.json"
HARDWARE_HELP = ", ".join(profiles.names())

NO_TTFT_MS = 10_000.0
NO_TBT_MS = 1_000.0
"""What nodes aim at where no promise was given: hardly anything is late."""


LOOK_S = 1.0
"""Between two looks at whether the promise can still be kept."""


class Outcome(msgspec.Struct, frozen=True):
    result: Result
    records: Sequence[RequestRecord]
    spans: Sequence[Span]


Attaching = Callable[[Simulation], None]


class _GivenUp(Exception):  # noqa: N818 - not an error: the answer is known
    """The promise can't be kept any more."""


class Study:
    """`run` at the given rate, `sweep` for the highest that keeps the promise."""

    def __init__(
        self,
        *,
        arrivals: Sequence[Arrival],
        workload: Workload,
        slo: Slo,
        model: str,
        hardware: str,
        gpus: int = 1,
        nodes: int = 1,
        mode: wire.Mode = wire.Mode.AUTO,
        routing: str = "least-load",
        dispatcher: dispatching.Making | None = None,
        attach: Attaching | None = None,
        link: Link | None = None,
        max_running: int = 256,
        chunk_tokens: int | None = None,
        keep_spans: bool = False,
        command: str = "drift simulate",
    ) -> None:
        """`dispatcher` is what `routing` means; None: one of `dispatching`'s own. `attach` is called with every
        simulation before it runs: who steers its nodes, or makes one die. With `link` nodes hand requests on.

        Raises ValueError that names the field, or EngineError for names that are unknown.
        """
        for field, value in (
            ("nodes", nodes),
            ("gpus", gpus),
            ("max_running", max_running),
            ("chunk_tokens", chunk_tokens),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{field}: {value} is below 1")
        if not arrivals:
            raise ValueError("no request arrives")
        self.slo = slo
        self._arrivals = arrivals
        self._workload = workload
        self._model = model
        self._hardware = hardware if gpus == 1 else f"{gpus} x {hardware}"
        self._nodes = nodes
        self._mode = mode
        self._routing = routing
        self._dispatcher = dispatcher
        self._attach = attach
        self._link = link
        self._gpus = gpus
        self._command = command
        self.spec: NodeSpec = specs.spec(
            hardware=hardware,
            model=model,
            gpus=gpus,
            mode=mode,
            targets=wire.Targets(slo.ttft_ms or NO_TTFT_MS, slo.ttft_per_token_ms, slo.tbt_ms or NO_TBT_MS),
            max_running=max_running,
            chunk_tokens=chunk_tokens,
            kept_spans=KEPT_SPANS if keep_spans else 0,
        )
        self._latency: Snapshot | None = None

    @property
    def rate_rps(self) -> float:
        """Of the arrivals as given."""
        return len(self._arrivals) / window_s(self._arrivals)

    def run(self, scale: float = 1.0) -> Outcome:
        """With the arrivals `scale` times as fast."""
        start_s = time.monotonic()
        simulation = self._simulation()
        records = simulation.run(self._scaled(scale))
        elapsed_s = time.monotonic() - start_s
        summary = metrics.summarize(records, self.slo)
        gpu_s = self._gpus * simulation.node_s()
        good = round((summary["attainment"] or 0.0) * len(records))
        result = Result(
            kind="simulate",
            mode=self._mode.value,
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=self._command,
            drift_version=drift_version(),
            model=self._model,
            workload=msgspec.structs.replace(self._workload, rate_scale=self._workload.rate_scale * scale),
            realtime_factor=summary["duration_s"] / elapsed_s,
            hardware=self._hardware,
            nodes=self._nodes,
            routing=self._routing,
            gpu_s=gpu_s,
            gpu_s_per_good=gpu_s / good if good else None,
            **summary,
        )
        return Outcome(result, records, simulation.nodes[0].spans)

    def sweep(self) -> Outcome:
        """The run at the highest rate that keeps the promise; at the lowest that was tried where none does."""
        assert self.slo.bounded, "a sweep needs a promise"
        assert window_s(self._arrivals) > 0, "a sweep needs requests at different times"
        rate_rps = self.rate_rps
        found = sweeping.highest(self.keeps)
        best = found.rate_scale or min(tried.rate_scale for tried in found.tried)
        outcome = self.run(best)
        sweep = Sweep(
            goodput_rps=None if found.rate_scale is None else rate_rps * found.rate_scale,
            tried=tuple(
                Tried(rate_rps=rate_rps * tried.rate_scale, attainment=tried.attainment, kept=tried.kept)
                for tried in sorted(found.tried, key=lambda tried: tried.rate_scale)
            ),
        )
        return msgspec.structs.replace(outcome, result=msgspec.structs.replace(outcome.result, sweep=sweep))

    def keeps(self, scale: float = 1.0) -> tuple[float, bool]:
        """(attainment, kept) with the arrivals `scale` times as fast, given up as soon as it is known."""
        total, missed, late = len(self._arrivals), 0, 0
        simulation = self._simulation()

        def weigh() -> None:
            if (
                total - missed - late
            ) / total < self.slo.attainment_target:  # as `metrics` judges a whole run
                raise _GivenUp

        def judge(record: RequestRecord) -> None:
            nonlocal missed, late
            late = 0  # this one may be among them
            missed += not metrics.both_met(record, self.slo)
            weigh()

        def look(now_s: float) -> None:
            """Requests that wait for their first token and can't have it in time, whatever is cached."""
            nonlocal late
            late = sum(
                now_s - due_s > metrics.ttft_most_s(self.slo, tokens)
                for due_s, tokens in simulation.waiting()
            )
            weigh()

        simulation.every(LOOK_S, look, idle=False)
        try:
            simulation.run(self._scaled(scale), judge)
        except _GivenUp:
            return (total - missed - late) / total, False
        return (total - missed) / total, True

    def _simulation(self) -> Simulation:
        if self._latency is None:
            self._latency = nodes.calibrated(self.spec)
        simulation = Simulation(
            self.spec,
            self._latency,
            nodes=self._nodes,
            routing=self._dispatcher or self._routing,
            link=self._link,
        )
        if self._attach is not None:
            self._attach(simulation)
        return simulation

    def _scaled(self, scale: float) -> Sequence[Arrival]:
        if scale == 1.0:
            return self._arrivals
        return [msgspec.structs.replace(arrival, at_s=arrival.at_s / scale) for arrival in self._arrivals]


def window_s(arrivals: Sequence[Arrival]) -> float:
    """Over which they are offered, as `metrics.offered_s` counts; 0 for a single instant."""
    times_s = [arrival.at_s for arrival in arrivals]
    return (max(times_s) - min(times_s)) * len(times_s) / max(1, len(times_s) - 1)


def write_log(path: Path, records: Sequence[RequestRecord]) -> None:
    """Raises LogError."""
    writer = LogWriter(path)
    try:
        for record in records:
            writer.append(record)
    finally:
        writer.close()
