"""Which operator leads, for the Services in front of them: a label on its pod.

One that waits for the Lease is ready to take over, but knows of no service: KEDA, HPAs and people have to be led to
the one that works. Whoever is no pod, as in a test, has nothing to label.
"""

from __future__ import annotations

import asyncio
import logging

from drift_operator import driftservice
from drift_operator.cluster import kinds
from drift_operator.cluster.api import Api, ApiError, NotFoundError
from drift_operator.options import OperatorOptions

log = logging.getLogger(__name__)

LABEL = f"{driftservice.GROUP}/leader"

RETRY_S, RETRY_MOST_S = 1.0, 30.0
HIDE_S = 2.0
"""An operator that ends must not wait long for an API server that has gone."""


async def show(api: Api, options: OperatorOptions) -> None:
    """Returns when it is done."""
    pause_s = RETRY_S
    while True:
        try:
            await _label(api, options, "true")
            return
        except ApiError as error:
            log.warning("who leads could not be shown: %s; again in %.0f s", error, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)


async def hide(api: Api, options: OperatorOptions) -> None:
    """Also before anything else: a container that was killed leaves its pod's label to the next one."""
    try:
        async with asyncio.timeout(HIDE_S):
            await _label(api, options, None)
    except (ApiError, TimeoutError) as error:
        log.warning("who no longer leads could not be shown: %s", error or f"no answer in {HIDE_S:g} s")


async def _label(api: Api, options: OperatorOptions, value: str | None) -> None:
    patch = {"metadata": {"labels": {LABEL: value}}}
    try:
        await api.merge(kinds.POD, options.own_namespace, options.identity, patch)
    except NotFoundError:
        log.debug("no pod %s/%s", options.own_namespace, options.identity)
