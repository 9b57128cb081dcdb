"""What the lanes of a node did: each launch, and all of them as a timeline."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from drift_engine.timelines import Bar, Timeline

KEPT_SPANS = 50_000
"""The last ones, where a timeline was asked for: some minutes of a busy node; 9 MB."""

PICTURE_S = 2.0
"""A picture shows this much before the last span's end: a few dozen decode steps, each wide enough to be seen."""

COLOURS = {"decode": "#2b6cb0", "prefill": "#dd6b20", "fused": "#6b46c1"}


class Span(msgspec.Struct, frozen=True, gc=False):
    """One launch on one lane: a pass, or the layers [first_layer, end_layer) of one."""

    lane: str
    start_s: float
    seconds: float
    decode_rows: int
    new_tokens: int
    first_layer: int
    end_layer: int

    @property
    def end_s(self) -> float:
        return self.start_s + self.seconds

    @property
    def kind(self) -> str:
        if self.decode_rows and self.new_tokens:
            return "fused"
        return "decode" if self.decode_rows else "prefill"

    @property
    def label(self) -> str:
        parts = [f"{self.decode_rows} rows"] if self.decode_rows else []
        parts += [f"{self.new_tokens} tokens"] if self.new_tokens else []
        return f"{self.kind}: {', '.join(parts)}, layers {self.first_layer} to {self.end_layer - 1}"


def timeline(spans: Sequence[Span]) -> Timeline:
    """A row for each lane, times by the device's clock."""
    lanes = _lanes(spans)
    rows = {lane: row for row, lane in enumerate(lanes)}
    bars = [
        Bar(
            rows[span.lane],
            span.start_s,
            span.end_s,
            span.kind,
            span.label,
            {
                "decode_rows": span.decode_rows,
                "new_tokens": span.new_tokens,
                "layers": [span.first_layer, span.end_layer],
            },
        )
        for span in spans
    ]
    end_s = max((span.end_s for span in spans), default=0.0)
    return Timeline("node", 1, lanes, bars, COLOURS, end_s, PICTURE_S)


def _lanes(spans: Sequence[Span]) -> list[str]:
    """The whole device first, then decode parts, then prefill parts."""
    order = {"whole": 0, "decode": 1, "prefill": 2}
    return sorted(
        {span.lane for span in spans}, key=lambda lane: (order.get(lane.partition("-")[0], 3), lane)
    )
