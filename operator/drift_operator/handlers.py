"""kopf's part: it watches DriftServices and tells of each change.

No handler of ours needs a finalizer or an annotation, so kopf writes nothing into the users' objects: a service can
be deleted while no operator runs, and its objects go with it (docs/adr/0011).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
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
STOP_S = 5.0
"""For kopf to end its tasks: no call of ours waits on them."""

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
    made.process.ultimate_exiting_timeout = None  # when kopf ends, the process need not
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
    """Until `stop` is set. `see` is called in the caller's event loop, and no more once this has returned.

    An answer that kopf takes for the end of everything, such as a watch that is refused with 410, is one more reason
    to list anew. Raises it where that helps nothing.
    """
    loop, in_a_row = asyncio.get_running_loop(), 0
    while True:
        start_s = loop.time()
        try:
            await _watched(see, namespaces, stop)
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


async def _watched(see: See, namespaces: tuple[str, ...], stop: asyncio.Event) -> None:
    """kopf works in a thread with an event loop of its own: when it ends, in whatever way, it cancels all tasks of
    the loop that were begun after it, and ours would be among them.
    """
    here, flag, heard = asyncio.get_running_loop(), asyncio.Event(), True
    begun: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()

    def tell(body: dict[str, Any], deleted: bool) -> None:
        if heard:
            see(body, deleted)

    def pass_on(body: dict[str, Any], deleted: bool) -> None:
        here.call_soon_threadsafe(tell, body, deleted)

    async def watch() -> None:
        begun.set_result(asyncio.get_running_loop())
        await kopf.operator(
            registry=registry(pass_on),
            settings=settings(namespaces),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=flag,
        )

    def halt(begun: concurrent.futures.Future[asyncio.AbstractEventLoop]) -> None:
        with contextlib.suppress(RuntimeError):  # it ended by itself
            begun.result().call_soon_threadsafe(flag.set)

    watching = asyncio.create_task(asyncio.to_thread(asyncio.run, watch()))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        heard = False
        stopping.cancel()
        begun.add_done_callback(halt)
        await asyncio.wait({watching}, timeout=STOP_S)
    if watching.done():
        watching.result()
