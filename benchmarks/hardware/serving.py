"""Compares whole passes with servers that were measured on an H200, as far as such rows exist.

The sample (ai-dynamo/aiconfigurator's silicon data) has no dense bfloat16 model on an H200. What it has are Llama 8B
and 70B with 8-bit weights; the profile was not fitted to 8-bit GEMMs and takes them at twice the peak with half of
the bytes. Concurrency is constant: while each of c requests takes its `osl` steps, every one is prefilled once,

    TPOT = pass(decode) + c / osl * (pass(decode and one prompt) - pass(decode))     TTFT = pass(one prompt)

A measured TTFT waits for other prompts, so the predicted one is a lower bound, compared where few requests run.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from benchmarks.hardware import search

from drift_engine.errors import CapacityError
from drift_engine.hardware import Hardware, ModelShape, Roofline, shapes
from drift_engine.latency.loads import Load

SYSTEM = "h200_sxm"
SHAPES = {
    "meta-llama/Llama-3.1-70B": "llama-70b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-8b",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-8b",
}
METHOD = (
    "8-bit weights, taken at twice the bfloat16 peak with half of the bytes: the sample has no dense bfloat16 rows",
    "TPOT: one decode pass, and all concurrent requests' prompts once per output length, fused into decode passes",
    "TTFT: one prompt alone that never waits, so a lower bound; rows of few requests only",
    "unexplained: vLLM's 8B rows. At constant concurrency 112 requests of 1,000 tokens that take 1.19 s each are "
    "1.5 PFLOP/s of prefill on one GPU beside decode; perhaps prompts were cached or the load was not constant",
)
FEW_REQUESTS = 8
LONG_OUTPUT_TOKENS = 1000


class Row(msgspec.Struct, frozen=True):
    backend: str
    shape: str
    gpus: int
    isl: int
    osl: int
    requests: int
    tpot_s: float
    ttft_s: float
    predicted_tpot_s: float
    predicted_ttft_s: float


def compare(sample: Path, hardware: Hardware) -> dict[str, Any]:
    """Errors of TPOT and TTFT over the rows whose KV fits, by server, model and GPUs."""
    rows, dropped, bfloat16 = [], 0, 0
    for line in csv.DictReader(sample.open()):
        if line["system"] != SYSTEM or line["model_path"] not in SHAPES:
            continue
        bfloat16 += line["gemm_quant_mode"] in {"", "bfloat16", "float16"}
        row = _row(line, hardware)
        if row is None:
            dropped += 1
        else:
            rows.append(row)
    backends, models = sorted({row.backend for row in rows}), sorted({row.shape for row in rows})
    tpot = {"1 or 2 GPUs": [row for row in rows if row.gpus <= 2]}
    tpot["1 or 2 GPUs, long outputs"] = [row for row in tpot["1 or 2 GPUs"] if row.osl >= LONG_OUTPUT_TOKENS]
    tpot["1 or 2 GPUs, short outputs"] = [row for row in tpot["1 or 2 GPUs"] if row.osl < LONG_OUTPUT_TOKENS]
    for backend in backends:
        for model in models:
            for gpus in (1, 2, 4, 8):
                tpot[f"{backend} {model} x{gpus}"] = [
                    row for row in rows if (row.backend, row.shape, row.gpus) == (backend, model, gpus)
                ]
    ttft = {
        name: few
        for name, found in tpot.items()
        if (few := [row for row in found if row.requests <= FEW_REQUESTS])
    }
    return {
        "method": METHOD,
        "dense_bfloat16_rows": bfloat16,
        "rows": len(rows),
        "rows_without_room_for_their_kv": dropped,
        "tpot": {name: _errors(found, "tpot_s") for name, found in {"all": rows, **tpot}.items() if found},
        "ttft": {name: _errors(found, "ttft_s") for name, found in ttft.items()},
    }


def _row(line: dict[str, str], hardware: Hardware) -> Row | None:
    gpus, requests = int(float(line["tp_size"])), int(float(line["batch_size"]))
    isl, osl = int(line["isl"]), int(line["osl"])
    bfloat16: ModelShape = shapes.read(SHAPES[line["model_path"]], gpus)
    shape = msgspec.structs.replace(bfloat16, bytes_per_parameter=1)
    try:
        if requests * (isl + osl) > shape.kv_tokens(hardware):
            return None
    except CapacityError:
        return None
    roofline = Roofline(hardware, shape)
    decode, prompt = Load.decode(requests, requests * (isl + osl // 2)), Load.prefill([(isl, 0)])
    step_s = roofline.pass_s(decode, hardware.sms)
    prompt_s = roofline.pass_s(decode + prompt, hardware.sms) - step_s
    return Row(
        backend=line["backend"],
        shape=SHAPES[line["model_path"]],
        gpus=gpus,
        isl=isl,
        osl=osl,
        requests=requests,
        tpot_s=float(line["silicon_tpot_ms"]) / 1e3,
        ttft_s=float(line["silicon_ttft_ms"]) / 1e3,
        predicted_tpot_s=step_s + requests / osl * prompt_s,
        predicted_ttft_s=roofline.pass_s(prompt, hardware.sms),
    )


def _errors(rows: list[Row], field: str) -> dict[str, Any]:
    predicted = np.array([getattr(row, f"predicted_{field}") for row in rows])
    return search.errors(predicted, np.array([getattr(row, field) for row in rows]), {})["all"]
