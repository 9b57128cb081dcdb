"""A latency model survives a restart, and only on what it was learned on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from drift_engine.latency import saved
from drift_engine.latency.loads import Load
from drift_engine.latency.model import LatencyModel
from drift_engine.latency.saved import Identity, Refused
from drift_engine.latency.snapshots import Snapshot
from latency_truth import decode_loads, fused_loads, prefill_loads, seconds

IDENTITY = Identity("NVIDIA H200", "llama-8b", "bfloat16", "0.1.0")
LOADS = [*prefill_loads(), *decode_loads(), *fused_loads()]
NEIGHBOUR = Load.prefill([(2048, 0)])


def learned() -> LatencyModel:
    model = LatencyModel()
    for number, load in enumerate(LOADS):
        for sms in (32, 132):
            model.observe(load, sms, seconds(load, sms), None, number)
        model.observe(load, 64, 1.4 * seconds(load, 64), NEIGHBOUR, number)
    return model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "latency.json"


def test_a_saved_model_predicts_the_same(path: Path) -> None:
    before, after = learned(), LatencyModel()
    saved.save(path, IDENTITY, before.snapshot())
    snapshot = saved.load(path, IDENTITY)
    assert isinstance(snapshot, Snapshot)
    after.restore(snapshot)
    for load in LOADS:
        for sms in (16, 32, 64, 100, 132):
            assert after.pass_s(load, sms) == pytest.approx(before.pass_s(load, sms), rel=1e-9)
            assert after.beside_s(load, sms, NEIGHBOUR) == pytest.approx(
                before.beside_s(load, sms, NEIGHBOUR), rel=1e-9
            )


def test_saving_again_replaces_the_file_and_leaves_nothing_else(path: Path) -> None:
    saved.save(path, IDENTITY, Snapshot())
    saved.save(path, IDENTITY, learned().snapshot())
    snapshot = saved.load(path, IDENTITY)
    assert isinstance(snapshot, Snapshot)
    assert snapshot.decode
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_save_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved.save(path, IDENTITY, learned().snapshot())
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        saved.save(path, IDENTITY, Snapshot())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_nothing_saved_is_a_reason_too(path: Path) -> None:
    assert saved.load(path, IDENTITY) == Refused(f"{path}: no latency model was saved")


def test_a_folder_is_no_file(path: Path) -> None:
    path.mkdir(parents=True)
    refused = saved.load(path, IDENTITY)
    assert isinstance(refused, Refused)
    assert "can't be read" in refused.reason


@pytest.mark.parametrize("field", IDENTITY.__struct_fields__)
def test_another_identity_is_refused(path: Path, field: str) -> None:
    saved.save(path, IDENTITY, learned().snapshot())
    other = msgspec.structs.replace(IDENTITY, **{field: "another"})
    refused = saved.load(path, other)
    assert isinstance(refused, Refused)
    assert field in refused.reason
    assert "'another'" in refused.reason


def edited(path: Path, **changes: Any) -> None:
    """Changes the first decode estimate, or the document where the name is one of its own."""
    document = msgspec.json.decode(path.read_bytes())
    for name, value in changes.items():
        (document if name in document else document["snapshot"]["decode"][0])[name] = value
    path.write_bytes(msgspec.json.encode(document))


def test_another_schema_is_refused_whatever_else_it_holds(path: Path) -> None:
    saved.save(path, IDENTITY, learned().snapshot())
    edited(path, schema=saved.SCHEMA + 1, snapshot="of a kind to come")
    refused = saved.load(path, IDENTITY)
    assert isinstance(refused, Refused)
    assert "schema 2, this version reads 1" in refused.reason


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"coefficients": [1.0, -1.0, 1.0]}, id="negative"),
        pytest.param({"coefficients": [1.0, 1.0]}, id="too few"),
        pytest.param({"coefficients": [1.0, None, 1.0]}, id="not a number"),
        pytest.param({"covariance": [[1.0, 0.0], [0.0, 1.0]]}, id="too small"),
        pytest.param({"covariance": [[1.0, 0, 0], [0, 0.0, 0], [0, 0, 1.0]]}, id="certain"),
        pytest.param({"covariance": [[1.0, 0.5, 0], [0, 1.0, 0], [0, 0, 1.0]]}, id="lopsided"),
        pytest.param({"sms": 0}, id="no SMs"),
        pytest.param({"sms": 1000}, id="out of order"),
        pytest.param({"snapshot": {"prefill": 7}}, id="of another type"),
    ],
)
def test_impossible_content_is_refused(path: Path, changes: dict[str, Any]) -> None:
    saved.save(path, IDENTITY, learned().snapshot())
    edited(path, **changes)
    refused = saved.load(path, IDENTITY)
    assert isinstance(refused, Refused)
    assert "is damaged" in refused.reason


@pytest.mark.parametrize("keep", [0, 1, 100, 1000])
def test_half_a_file_is_refused(path: Path, keep: int) -> None:
    saved.save(path, IDENTITY, learned().snapshot())
    path.write_bytes(path.read_bytes()[:keep])
    assert isinstance(saved.load(path, IDENTITY), Refused)


def test_bytes_that_are_no_text_are_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"schema": 1, "identity": {"hardware": "\xff\xfe"}}')
    assert isinstance(saved.load(path, IDENTITY), Refused)
