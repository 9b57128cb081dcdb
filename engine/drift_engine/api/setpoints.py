"""What the operator last told this node: which splits it may take, and its share of new requests.

The operator numbers its words (epochs), and each holds for a time only: a node that hears nothing any more, or only
from a replica that was deposed, decides alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pydantic import Field, model_validator

from drift_engine import wire
from drift_engine.api import errors
from drift_engine.api.requests import Body

LONGEST_TTL_S = 3600.0

LAST_EPOCH = 2**63 - 1
"""And generation: Kubernetes' own are as long."""

MOST_SMS = 2**16
"""More than any device has."""


class Bounds(Body):
    min: int = Field(ge=1, le=MOST_SMS)
    max: int = Field(ge=1, le=MOST_SMS)


class SetPoint(Body):
    """`PUT /control/v1/split`."""

    epoch: int = Field(ge=1, le=LAST_EPOCH)
    generation: int = Field(0, ge=0, le=LAST_EPOCH)
    decode_sms: int | None = Field(None, ge=1, le=MOST_SMS)
    bounds: Bounds | None = None
    weight: float = Field(1.0, ge=0, le=1)
    ttl_s: float = Field(30.0, gt=0, le=LONGEST_TTL_S)

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if self.decode_sms is not None and self.bounds is not None:
            raise ValueError("decode_sms and bounds exclude each other")
        return self

    @property
    def range(self) -> tuple[int, int] | None:
        """Fewest and most decode SMs; None: as the node likes."""
        if self.decode_sms is not None:
            return self.decode_sms, self.decode_sms
        return (self.bounds.min, self.bounds.max) if self.bounds is not None else None


@dataclass(slots=True)
class SetPoints:
    """The last set-point and until when it holds."""

    last: SetPoint | None = None
    until_s: float = 0.0

    def take(self, asked: SetPoint, splits: tuple[wire.Split, ...], now_s: float) -> wire.SetBounds:
        """What to tell the core. Raises 409 for an older epoch than the one that holds, 400 for bounds that the
        hardware cannot make. Where none holds any more an operator that knows of none may begin anew.
        """
        present = self.present(now_s)
        if present is not None and asked.epoch < present.epoch:
            raise errors.ApiError(
                409,
                f"epoch: {asked.epoch} is older than {present.epoch}, which this node keeps",
                param="epoch",
                code="stale_epoch",
            )
        fewest, most = asked.range or (1, max((split.decode_sms for split in splits), default=1))
        if asked.range is not None and not any(fewest <= split.decode_sms <= most for split in splits):
            field = "decode_sms" if asked.decode_sms is not None else "bounds"
            value = str(fewest) if asked.decode_sms is not None else f"{fewest} to {most}"
            raise errors.invalid(
                field, f"{value} is no split of this device; {_legal(splits)}", "illegal_split"
            )
        self.last, self.until_s = asked, now_s + asked.ttl_s
        return wire.SetBounds(asked.epoch, fewest, most, self.until_s)

    def present(self, now_s: float) -> SetPoint | None:
        """None: the node decides alone."""
        return self.last if now_s < self.until_s else None


def _legal(splits: tuple[wire.Split, ...]) -> str:
    if not splits:
        return "it cannot be split"
    return "legal decode_sms: " + ", ".join(str(split.decode_sms) for split in splits)
