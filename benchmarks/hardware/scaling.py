"""From which share of the SMs on memory is saturated, read from decode times that were published by SM count.

    T(s) = constant + weights * max(1, w / s) + context * max(1, c / s)

w and c are the SMs that saturate the memory in GEMMs and in generation attention. The times are the coefficients that
MuxWise's authors published for their SGLang (ykcombat/sglang, branch slo_scheduler, commit 56f74d24, predictor.py),
evaluated at 32 rows with 32K tokens of context in all and 64 rows with 256K, in milliseconds; the A100's are a 70B
model on 8 GPUs. Their decode features for H800 look odd (squared thousands of tokens), so the A100's are fitted too:
both say much the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from drift_engine.latency import nnls

SMS = (8, 16, 24, 32, 56, 64)
SMALL_MS = {  # the last is the whole GPU
    "H800": (55.9, 31.4, 25.3, 22.0, 18.3, 17.4, 16.4),
    "A100": (98.7, 55.6, 42.3, 34.1, 28.5, 26.5, 25.3),
}
LARGE_MS = {
    "H800": (151.9, 79.0, 58.4, 45.9, 32.4, 30.1, 22.2),
    "A100": (215.9, 116.4, 84.8, 64.5, 47.7, 42.8, 35.8),
}
ALL_SMS = {"H800": 132, "A100": 108}
CONTEXT_RATIO = 8.0
STEP_SMS = 4


def shares(gpu: str) -> dict[str, Any]:
    """Saturating shares of weights and of context, and how well the formula fits."""
    all_sms = ALL_SMS[gpu]
    sms = np.array([*SMS, all_sms], dtype=float)
    measured = np.array(SMALL_MS[gpu] + LARGE_MS[gpu])
    candidates = []
    for weights_sms in range(STEP_SMS, all_sms + 1, STEP_SMS):
        for context_sms in range(STEP_SMS, all_sms + 1, STEP_SMS):
            features = np.concatenate(
                [
                    np.stack(
                        [
                            np.ones_like(sms),
                            np.maximum(1, weights_sms / sms),
                            ratio * np.maximum(1, context_sms / sms),
                        ],
                        axis=1,
                    )
                    for ratio in (1.0, CONTEXT_RATIO)
                ]
            )
            solved = nnls.solve(features / measured[:, None], np.ones_like(measured))
            percent = 100 * np.abs(features @ solved / measured - 1)
            candidates.append((float(percent.mean()), float(percent.max()), weights_sms, context_sms))
    mean, worst, weights_sms, context_sms = min(candidates)
    return {
        "gpu": gpu,
        "weights_saturating_share": round(weights_sms / all_sms, 3),
        "attention_saturating_share": round(context_sms / all_sms, 3),
        "points": len(measured),
        "mean_absolute_percent": round(mean, 1),
        "worst_absolute_percent": round(worst, 1),
    }
