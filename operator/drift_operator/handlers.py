"""kopf's part: it watches DriftServices and tells of each change.

No handler of ours needs a finalizer or an annotation, so kopf writes nothing into the users' objects: a service can
be deleted while no operator runs, and its objects go with it (docs/adr/0011).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import kopf

from drift_operator import crd, driftservice
from drift_operator.objects import names

See = Callable[[dict[str, Any], bool], None]
"""Hears of every DriftService, and whether it was deleted."""

SERVER_S = 240
"""A watch is opened anew so often: balancers between us and the API server cut what is older than 5 minutes."""

CONNECT_S, CALL_S = 10.0, 30.0

AGAIN_S = 2.0
ATTEMPTS, SOON_S = 5, 1.0
"""What fails at once five times in a row goes on doing so, as without rights; that the operator ends is seen."""

log = logging.getLogger(__name__)


def settings(namespaces: tuple[str, ...]) -> kopf.OperatorSettings:
    made = kopf.OperatorSettings()
    # Which namespaces and kinds there are is nothing that a Role of some namespaces could let us ask.
    made.scanning.disabled = bool(namespaces)
    made.posting.level = logging.WARNING
    made.posting.loggers = False
    made.peering.standalone = True
    made.persistence.finalizer = f"{driftservice.GROUP}/{names.FIELD_MANAGER}"
    made.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=driftservice.GROUP)
    made.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=driftservice.GROUP)
    made.watching.server_timeout = SERVER_S
    made.watching.client_timeout = SERVER_S + CALL_S
    made.watching.connect_timeout = CONNECT_S
    made.networking.request_timeout = CALL_S
    made.networking.connect_timeout = CONNECT_S
    made.networking.enforce_retry_after = True
    made.queueing.worker_limit = 16
    made.process.ultimate_exiting_timeout = 20.0
    return made


def registry(see: See) -> kopf.OperatorRegistry:
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    def login(**kwargs: Any) -> Any:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(driftservice.GROUP, driftservice.VERSION, crd.PLURAL, registry=made)
    async def changed(event: kopf.RawEvent, **_: Any) -> None:
        see(dict(event["object"]), event["type"] == "DELETED")

    return made


async def run(see: See, namespaces: tuple[str, ...], stop: asyncio.Event) -> None:
    """Until `stop` is set, or the process is asked to end.

    An answer that kopf takes for the end of everything, such as a watch that is refused with 410, is one more reason
    to list anew. Raises it where that helps nothing.
    """
    loop, in_a_row = asyncio.get_running_loop(), 0
    while True:
        start_s = loop.time()
        try:
            await kopf.operator(
                registry=registry(see),
                settings=settings(namespaces),
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
                stop_flag=stop,
            )
            return
        except Exception as error:
            in_a_row = in_a_row + 1 if loop.time() - start_s < SOON_S else 0
            if in_a_row == ATTEMPTS:
                raise
            log.warning("watching driftservices: %s; again in %g s", error, AGAIN_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_S):
                await stop.wait()
                return
