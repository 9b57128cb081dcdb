"""What a core refuses before it serves: modes that the device cannot serve, tables that are none."""

from __future__ import annotations

import pytest

import drift_tiny
from core_harness import Mailbox
from drift_engine import wire
from drift_engine.core import process
from drift_engine.errors import OptionsError
from drift_engine.options import NodeOptions


@pytest.mark.parametrize(
    ("mode", "batch_table", "phrase"),
    [
        (
            wire.Mode.OVERLAP,
            "",
            r"mode: overlap needs a device with two lanes over all of it, .* \(1 thread on 1 of ",
        ),
        (
            wire.Mode.MUXWISE,
            "",
            r"mode: muxwise needs a device that can be split, .* \(1 thread on 1 of ",
        ),
        (
            wire.Mode.BATCH_TABLE,
            "",
            r"mode: batch-table needs a device that can be split, .* take auto or fused",
        ),
        (wire.Mode.FUSED, "many", r"batch_table: 'many' is not ROWS:DECODE_SMS, as in 1:16,8:32"),
    ],
)
def test_what_can_not_be_served_is_refused(mode: wire.Mode, batch_table: str, phrase: str) -> None:
    options = NodeOptions(
        "embedded://drift-tiny", mode=mode, device="cpu", threads=1, kv_bytes=1 << 22, batch_table=batch_table
    )
    with pytest.raises(OptionsError, match=phrase):
        process.start(options, drift_tiny.checkpoint_path(), Mailbox())
