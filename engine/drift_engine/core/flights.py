"""What the lanes compute now: one pass, and beside it prefills that are launched by layers, the last begun first.

Launches are carried out and remembered here; what has ended comes back as `Ended`, in the terms that the core books.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from drift_engine import wire
from drift_engine.devices.base import CutPass, Device, Drawn, Event, Lane, Pass, Results, Row, load_of
from drift_engine.errors import DeviceError
from drift_engine.latency.loads import Load
from drift_engine.launches import Span
from drift_engine.scheduling import views
from drift_engine.scheduling.pacing import Step
from drift_engine.scheduling.predictions import Predictions

PASS_LIMIT_S = 600.0
"""A launch that takes longer hangs. The longest honest one: 2,048 prompt tokens of an 8B model on 2 CPU cores, which
at the 0.2 TFLOP/s measured there takes about 3 minutes."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A pass that is complete: it computed `advances` tokens of each request."""

    advances: dict[str, int]
    drawn: Mapping[str, Sequence[Drawn]]
    load: Load  # of a pass of several steps, that of one in the middle
    lane_sms: int | None  # None: its layers ran on different lanes
    neighbour: Load | None  # what the other lane worked on meanwhile
    step_s: float
    forward_s: float
    overhead_s: float  # from launch to poll but for the forward
    launches: tuple[Span, ...]  # in which it was computed


@dataclass(slots=True)
class _Flight:
    """A launched pass."""

    event: Event
    advances: dict[str, int]
    view: views.Flight
    lane: Lane
    neighbour: Load | None
    launched_s: float
    steps: int
    step_s: float  # as predicted, 0 where nothing is known


class _Part(NamedTuple):
    """Launched layers, up to `stop`."""

    event: Event
    lane: Lane
    stop: int
    launched_s: float


@dataclass(slots=True, eq=False)
class _Cut:
    """A prefill of which some layers were launched; `parts` are those not yet known to be done."""

    cut: CutPass
    advances: dict[str, int]
    load: Load
    rest: Load
    deadline_s: float
    firm_s: float
    split: wire.Split | None = None
    parts: list[_Part] = field(default_factory=list)
    done: int = 0
    launches: list[Span] = field(default_factory=list)
    lanes_sms: set[int] = field(default_factory=set)
    neighbour: Load | None = None
    pass_s: float = 0.0
    forward_s: float = 0.0
    dropped: bool = False


class Flights:
    """At most one pass, and a stack of cut prefills. The pass may have the whole device only when it is alone."""

    def __init__(self, device: Device, latency: Predictions, layers: int, kept_spans: int) -> None:
        self._device = device
        self._layers = layers
        self._latency = latency
        self._flight: _Flight | None = None
        self._cuts: list[_Cut] = []
        self.spans: deque[Span] = deque(maxlen=kept_spans)
        """What ended last, on all lanes."""
        self._split: wire.Split | None = None
        self._split_since_s = 0.0
        self._mode: wire.Mode | None = None

    def __len__(self) -> int:
        return (self._flight is not None) + len(self._cuts)

    def __contains__(self, request_id: str) -> bool:
        """Whether a lane works on the request."""
        flight = self._flight
        return (flight is not None and request_id in flight.advances) or any(
            request_id in cut.advances for cut in self._cuts
        )

    @property
    def requests(self) -> set[str]:
        """Those that the lanes work on."""
        found = set(self._flight.advances) if self._flight is not None else set()
        return found.union(*[cut.advances for cut in self._cuts])

    @property
    def full(self) -> bool:
        """The whole device is at work: nothing can be launched."""
        return self._flight is not None and self._flight.view.split is None

    @property
    def step_at_work(self) -> Step | None:
        """The decode step of the pass that is at work, as predicted."""
        flight = self._flight
        return (
            None
            if flight is None or not flight.view.load.decode_rows
            else Step(flight.view.ends_s, flight.step_s)
        )

    @property
    def cutting(self) -> bool:
        """A prefill is cut."""
        return bool(self._cuts)

    @property
    def activity(self) -> wire.Activity | None:
        """What the device does now; None: nothing."""
        if self._flight is None:
            return wire.Activity.PREFILL if self._cuts else None
        if self._cuts:
            return wire.Activity.MUX
        load = self._flight.view.load
        if load.decode_rows and load.new_tokens:
            return wire.Activity.FUSED
        return wire.Activity.DECODE if load.decode_rows else wire.Activity.PREFILL

    @property
    def split(self) -> wire.Split | None:
        """In use now, or last."""
        return self._split

    @property
    def mode(self) -> wire.Mode | None:
        """In which prefill and decode met last."""
        return self._mode

    def view(self, splits: tuple[wire.Split, ...]) -> views.Lanes:
        """With the splits that may be used now."""
        return views.Lanes(
            self._device.whole.sms,
            splits,
            self._flight.view if self._flight is not None else None,
            tuple(
                views.Cut(
                    cut.load,
                    cut.deadline_s,
                    cut.firm_s,
                    cut.split,
                    cut.cut.layers,
                    cut.cut.launched,
                    cut.done,
                    cut.rest,
                )
                for cut in self._cuts
            ),
            self._split,
            self._split_since_s,
            self._mode,
        )

    def launch(
        self,
        mode: wire.Mode,
        decode: tuple[Row, ...],
        prefill: tuple[Row, ...],
        split: wire.Split | None,
        steps: int,
        tbt_target_s: float,
    ) -> None:
        """A pass, on the split's decode lane or the whole device; the target is the tightest of its decode rows."""
        assert self._flight is None, "a pass is in flight"
        assert split is not None or not self._cuts, "the whole device for a pass beside a cut prefill"
        load, neighbour = load_of(decode) + load_of(prefill), self._cuts[-1].load if self._cuts else None
        lane = self._lane(split, 0)
        if decode and prefill:
            self._mode = mode
        if neighbour is None:
            predicted_s = self._latency.pass_s(load, lane.sms)
        else:
            predicted_s = self._latency.beside_s(load, lane.sms, neighbour)
        now_s = self._device.clock.now_s()
        self._flight = _Flight(
            lane.launch(Pass(decode, prefill, steps)),
            {row.request_id: len(row.token_ids) for row in decode + prefill},
            views.Flight(load, split, now_s + (predicted_s or 0.0) * steps, tbt_target_s),
            lane,
            neighbour,
            now_s,
            steps,
            predicted_s or 0.0,
        )

    def begin(self, rows: tuple[Row, ...], rest: Load, deadline_s: float, firm_s: float) -> None:
        """A prefill to be launched by layers; one that is cut already waits until it is done. `rest` is what its
        prompts need behind it."""
        self._cuts.append(
            _Cut(
                self._device.cut(Pass((), rows)),
                {row.request_id: len(row.token_ids) for row in rows},
                load_of(rows),
                rest,
                deadline_s,
                firm_s,
            )
        )

    def launch_layers(self, mode: wire.Mode, count: int, split: wire.Split | None) -> None:
        """The next layers of the cut prefill, on the split's prefill lane or the whole device."""
        cut = self._cuts[-1]
        if cut.dropped:
            return
        lane = self._lane(split, 1)
        stop = min(cut.cut.launched + count, cut.cut.layers)
        launched_s = self._device.clock.now_s()
        cut.parts.append(_Part(lane.launch_layers(cut.cut, stop), lane, stop, launched_s))
        cut.split = split
        cut.lanes_sms.add(lane.sms)
        if self._flight is not None:
            self._mode = mode
            cut.neighbour = self._flight.view.load
            self._flight.neighbour = cut.load

    def settle(self, split: wire.Split) -> None:
        """From now on the split is this one, whatever single steps take."""
        if split != self._split:
            self._split, self._split_since_s = split, self._device.clock.now_s()

    def drop(self, wanted: Callable[[str], bool]) -> None:
        """Gives up cut prefills without a wanted request: they end with the layers that were launched."""
        for cut in self._cuts:
            cut.dropped = cut.dropped or not any(map(wanted, cut.advances))

    def recall(self) -> None:
        """Something changed that the plan could not know: a pass of several steps ends with the present one."""
        flight = self._flight
        if flight is None or flight.steps == 1:
            return
        self._device.recall(flight.event)
        if flight.step_s:
            # Layers are launched as far as the pass lasts: it lasts no longer than the step at work.
            steps = int((self._device.clock.now_s() - flight.launched_s) / flight.step_s) + 1
            ends_s = flight.launched_s + min(steps, flight.steps) * flight.step_s
            flight.view = replace(flight.view, ends_s=ends_s)

    def poll(self, timeout_s: float) -> list[Ended]:
        """What ended; waits for the first event. Raises DeviceError for a launch that failed or hangs."""
        pending = [self._flight.event] if self._flight is not None else []
        pending += [cut.parts[0].event for cut in self._cuts if cut.parts]
        if pending and not self._device.wait(pending, timeout_s):
            self._check_hanging()
            return []
        cuts = [ended for cut in tuple(self._cuts) if (ended := self._poll_cut(cut)) is not None]
        if cuts:
            self.recall()  # their rows decode from the next step on
        flight = self._poll_flight()
        return cuts if flight is None else [flight, *cuts]

    def _lane(self, split: wire.Split | None, part: int) -> Lane:
        if split is None:
            return self._device.whole
        return self._device.lanes(split)[part]

    def _poll_flight(self) -> Ended | None:
        flight = self._flight
        if flight is None or not flight.event.done():
            return None
        self._flight = None
        results, load, advances = flight.event.results(), flight.view.load, flight.advances
        steps = 1
        if flight.steps > 1:
            advances = {request_id: len(drawn) for request_id, drawn in results.drawn.items()}
            steps = max(advances.values())
            load = load + Load.decode(0, load.decode_rows * (steps - 1) // 2)
        launch = self._note(flight.lane, results, load, 0, self._layers)
        return Ended(
            advances,
            results.drawn,
            load,
            flight.lane.sms,
            flight.neighbour,
            results.pass_s / steps,
            results.forward_s,
            max(0.0, self._device.clock.now_s() - flight.launched_s - results.forward_s),
            (launch,),
        )

    def _poll_cut(self, cut: _Cut) -> Ended | None:
        drawn: Mapping[str, Sequence[Drawn]] = {}
        while cut.parts and cut.parts[0].event.done():
            part = cut.parts.pop(0)
            results = part.event.results()
            cut.launches.append(self._note(part.lane, results, cut.load, cut.done, part.stop))
            cut.done = part.stop
            cut.pass_s += results.pass_s
            cut.forward_s += results.forward_s
            drawn = results.drawn
        complete = cut.done == cut.cut.layers
        if not complete and (cut.parts or not cut.dropped):
            return None
        self._cuts.remove(cut)
        if not complete:
            cut.cut.drop()
        return Ended(
            cut.advances if complete else dict.fromkeys(cut.advances, 0),
            drawn,
            cut.load,
            next(iter(cut.lanes_sms)) if complete and len(cut.lanes_sms) == 1 else None,
            cut.neighbour,
            cut.pass_s,
            cut.forward_s,
            cut.pass_s - cut.forward_s,
            tuple(cut.launches),
        )

    def _note(self, lane: Lane, results: Results, load: Load, first_layer: int, end_layer: int) -> Span:
        span = Span(
            lane.name,
            results.start_s,
            results.pass_s,
            load.decode_rows,
            load.new_tokens,
            first_layer,
            end_layer,
        )
        self.spans.append(span)
        return span

    def _check_hanging(self) -> None:
        now_s = self._device.clock.now_s()
        launches = [(self._flight.launched_s, self._flight.view.load)] if self._flight is not None else []
        launches += [(cut.parts[0].launched_s, cut.load) for cut in self._cuts if cut.parts]
        for launched_s, load in launches:
            if now_s - launched_s > PASS_LIMIT_S:
                raise DeviceError(
                    f"a pass of {load.decode_rows} decode rows and {load.new_tokens} prefill tokens has not "
                    f"ended after {PASS_LIMIT_S:g} s: the device hangs"
                )
