"""One replay by Dynamo's offline simulator: runs in an environment of its own, told by `dynamo_peer.py`.

Reads {"trace", "block_tokens", "log", "workers", "prefill_workers", "decode_workers", "router", "engine"} as JSON
from standard input. Writes a line for each request to the log, as the simulator tells it, and its summary to standard
output.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ["DYN_LOG"] = "error"

from dynamo._core import run_mocker_trace_replay  # type: ignore[import-not-found]


def main() -> None:
    asked: dict[str, Any] = json.load(sys.stdin)
    split = asked["prefill_workers"] is not None

    def engine(kind: str) -> dict[str, Any]:
        return {"engine": {**asked["engine"], "worker_type": kind}}

    found = run_mocker_trace_replay(
        [asked["trace"]],
        extra_engine_args=None if split else engine("aggregated"),
        prefill_engine_args=engine("prefill") if split else None,
        decode_engine_args=engine("decode") if split else None,
        num_workers=1 if split else asked["workers"],
        num_prefill_workers=asked["prefill_workers"] or 1,
        num_decode_workers=asked["decode_workers"] or 1,
        router_mode=asked["router"],
        trace_block_size=asked["block_tokens"],
        report_jsonl_path=asked["log"],
    )
    summary = {name: value for name, value in found.summary.items() if isinstance(value, int | float)}
    json.dump(summary, sys.stdout)


if __name__ == "__main__":
    main()
