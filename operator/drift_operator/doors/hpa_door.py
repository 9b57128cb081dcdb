"""The door for HPAs: the aggregated API, from its certificate to its port.

In: the operator's figures, and the cluster's API server for everything about trust. Once a round it looks whether the
certificate, the front proxy's authorities and the APIService are as they should be; what changed takes effect on new
connections, without a pause. A round that fails changes nothing.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import ssl
import time
from collections.abc import Callable

from aiohttp import web

from drift_operator.cluster.api import ApiError
from drift_operator.doors import aggregated, front_proxy, tls
from drift_operator.doors.apiserver import ApiServer
from drift_operator.doors.certificates import Bundle
from drift_operator.doors.external_metrics import Access, Refused
from drift_operator.doors.figures import Figures
from drift_operator.doors.front_proxy import FrontProxy, FrontProxyError, User
from drift_operator.doors.pulse import Pulse
from drift_operator.doors.registering import Registrar, Registration, Standing
from drift_operator.doors.reviewing import Reviews
from drift_operator.options import OperatorOptions

log = logging.getLogger(__name__)

LOOP = "external-metrics"
ROUND_S = 30.0
"""Between two looks at Secret, ConfigMap and APIService: 0.1 requests a second for the API server, and authorities
are exchanged with days of overlap."""

FIRST_ROUND_S = 2.0
"""While nothing is served yet, or another replica was quicker."""

IDLE_S = 90.0
"""A connection without requests is closed, and one from before an exchange is so with its next answer: replaced
authorities hold no longer than that. An API server keeps idle connections as long, and an HPA asks every 15 s."""

STOP_S = 5.0


class HpaDoor:
    """Owned by the operator's process: `run` until it is cancelled. `standing` says how it is."""

    def __init__(
        self,
        options: OperatorOptions,
        api: ApiServer,
        figures: Figures,
        pulse: Pulse,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        assert options.external_metrics_port is not None
        self.standing = Standing(Registration.UNKNOWN, "the cluster has not been asked yet")
        self.port = 0
        """0 until it serves."""
        self._options = options
        self._wanted_port = options.external_metrics_port
        self._api = api
        self._now = now
        self._pulse = pulse
        self._registrar = Registrar(api, options)
        self._gate = _Gate(Reviews(api, clock))
        self._present: tuple[Bundle, FrontProxy] | None = None
        self._runner = web.AppRunner(
            aggregated.create_app(figures, self._gate, clock, now),
            access_log=None,
            handle_signals=False,
            keepalive_timeout=IDLE_S,
            shutdown_timeout=STOP_S,
        )

    @property
    def foreign(self) -> str | None:
        """Who else serves external metrics, where that keeps HPAs from us."""
        foreign = self.standing.registration is Registration.FOREIGN
        return self.standing.message if foreign else None

    async def run(self) -> None:
        """Until it is cancelled. Raises OSError where the port can't be listened on."""
        self._pulse.expect(LOOP, ROUND_S)
        await self._runner.setup()
        try:
            while True:
                good = await self._tried()
                self._pulse.beat(LOOP)
                await asyncio.sleep(ROUND_S if good else FIRST_ROUND_S)
        finally:
            self._pulse.forget(LOOP)
            await self._runner.cleanup()

    async def look(self) -> None:
        """One round. Raises ApiError, FrontProxyError or ssl.SSLError; what was served before is served on."""
        bundle = await self._registrar.certificate(self._now())
        proxy = front_proxy.parse((await self._api.get_path(front_proxy.CONFIG_MAP)).get("data") or {})
        # Before it is served: the API server must trust the certificate when it meets it.
        standing = await self._registrar.register(bundle.authority)
        if (bundle, proxy) != self._present:
            self._gate.use(
                tls.context(bundle.certificate, bundle.key, proxy.authorities),
                proxy,
            )
            self._present = (bundle, proxy)
        if standing != self.standing:
            level = logging.WARNING if standing.registration is Registration.FOREIGN else logging.INFO
            log.log(level, "external metrics: %s", standing.message)
            self.standing = standing

    async def _tried(self) -> bool:
        try:
            await self.look()
        except (ApiError, FrontProxyError, ssl.SSLError) as error:
            log.warning("external metrics: %s", error)
            return False
        if not self.port and self.standing.registration is Registration.REGISTERED:
            site = web.TCPSite(
                self._runner, self._options.host, self._wanted_port, ssl_context=self._gate.listening
            )
            await site.start()
            self.port = int(self._runner.addresses[0][1])
            log.info("external metrics are served on port %d", self.port)
        return True


class _Gate:
    """Who a request is from: the front proxy's word, or a token that the cluster knows."""

    def __init__(self, reviews: Reviews) -> None:
        self._reviews = reviews
        self._exchange = tls.Exchange()
        self._proxy = FrontProxy()

    @property
    def listening(self) -> ssl.SSLContext:
        return self._exchange.listening

    def use(self, context: ssl.SSLContext, proxy: FrontProxy) -> None:
        self._exchange.use(context)
        self._proxy = proxy

    def keeps(self, request: web.Request) -> bool:
        return self._exchange.is_present(request)

    async def user(self, request: web.Request) -> User:
        user = self._proxy.user(tls.common_names(request), request.headers)
        if user is not None:
            return user
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Refused(401, "neither the cluster's front proxy nor a bearer token")
        return await self._reviews.user(token.strip())

    async def authorize(self, user: User, access: Access) -> None:
        await self._reviews.authorize(user, access)
