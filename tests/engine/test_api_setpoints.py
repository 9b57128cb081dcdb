"""What the operator's words do over time."""

from __future__ import annotations

import pytest

from drift_engine import wire
from drift_engine.api.errors import ApiError
from drift_engine.api.setpoints import SetPoint, SetPoints

SPLITS = (wire.Split(1, 3), wire.Split(2, 2), wire.Split(3, 1))


def test_a_set_point_holds_until_its_time_to_live_is_over() -> None:
    points = SetPoints()
    told = points.take(
        SetPoint.model_validate({"epoch": 1, "decode_sms": 2, "ttl_s": 5}), SPLITS, now_s=100.0
    )
    assert told == wire.SetBounds(1, 2, 2, 105.0)
    assert points.present(104.9) is not None
    assert points.present(105.0) is None


def test_the_same_epoch_again_renews_it() -> None:
    points = SetPoints()
    for now_s in (100.0, 103.0):
        points.take(SetPoint.model_validate({"epoch": 1, "decode_sms": 2, "ttl_s": 5}), SPLITS, now_s)
    assert points.present(107.0) is not None


def test_an_older_epoch_is_refused_as_long_as_the_newer_one_holds() -> None:
    points = SetPoints()
    first, newer = (SetPoint.model_validate({"epoch": epoch, "ttl_s": 5}) for epoch in (1, 9))
    points.take(newer, SPLITS, now_s=100.0)
    with pytest.raises(ApiError, match="epoch: 1 is older than 9"):
        points.take(first, SPLITS, now_s=104.9)
    points.take(first, SPLITS, now_s=105.0)
    assert points.present(105.0) == first, "of an operator that was away for longer, and begins anew"


def test_a_weight_alone_bounds_nothing() -> None:
    told = SetPoints().take(SetPoint.model_validate({"epoch": 1, "weight": 0.2}), SPLITS, now_s=0.0)
    assert (told.decode_sms_min, told.decode_sms_max) == (1, 3)


def test_a_node_that_cannot_be_split_takes_a_weight() -> None:
    points = SetPoints()
    points.take(SetPoint.model_validate({"epoch": 1, "weight": 0.2}), (), now_s=0.0)
    present = points.present(1.0)
    assert present is not None
    assert present.weight == 0.2
