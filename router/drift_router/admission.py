"""Who may ask for what: paths, API keys, rate limits, and what only trusted clients may say."""

from __future__ import annotations

import hmac
import math

from drift_router import wishes
from drift_router.counters import Counters, Rejection, add
from drift_router.dataplane import prompts
from drift_router.dataplane.prompts import Prompt
from drift_router.dataplane.refusals import Refusal
from drift_router.dataplane.requests import Request
from drift_router.index import blocks
from drift_router.keys import Key, Keys
from drift_router.limits import Limits
from drift_router.options import Promise, RouterOptions
from drift_router.wishes import Wish

PASSED = (b"/tokenize", b"/detokenize", b"/openapi.json")
"""Beside /v1/*: what any node can answer."""


class Admission:
    def __init__(self, options: RouterOptions, keys: Keys | None, counters: Counters) -> None:
        self._counters = counters
        self._keys = keys
        self._limits = Limits(share=1 / options.workers)
        self._token = options.control_token.encode()
        self._session_header = (options.session_header or "").lower().encode()

    @property
    def guarded(self) -> bool:
        """By API keys of this router's own."""
        return self._keys is not None

    def accept(self, found: Keys) -> None:
        """These API keys, from now on."""
        self._keys = found
        self._limits.keep(found.names)

    def admit(
        self, request: Request, promise: Promise, bytes_per_token: float, now_s: float
    ) -> tuple[Wish, Prompt | None]:
        """Who asks for what. Raises Refusal."""
        path = request.path
        if not (path.startswith(b"/v1/") or path in PASSED):
            shown = path[:80].decode("latin-1")
            raise Refusal(404, f"{shown} is not served here; /v1/* is", code="not_found")
        if request.method not in (b"GET", b"POST"):
            raise Refusal(
                405, f"{request.method.decode()} is not allowed here", headers=((b"allow", b"GET, POST"),)
            )
        client, trusted = self._who(request)
        prompt, text_blocks, tokens, key = None, None, 1, 0
        if path in prompts.GENERATING:
            if request.method != b"POST":
                raise Refusal(405, "a completion is asked for with POST", headers=((b"allow", b"POST"),))
            prompt = prompts.read(path, request.body)
            tokens = max(1, round(len(prompt.text) / bytes_per_token))
            tenant = tenant_of(client)
            root = blocks.root(tenant.encode(), prompt.model.encode(), prompt.tools)
            text_blocks = blocks.split(prompt.text, root)
            key = blocks.beginning(prompt.text, root)
        if client is not None and (wait_s := self._limits.take(client, tokens, now_s)) > 0:
            add(self._counters.rejected, Rejection.RATE_LIMIT)
            raise Refusal(
                429,
                f"the API key {client.name} is over its rate limit",
                code="rate_limit_exceeded",
                headers=((b"retry-after", b"%d" % max(1, math.ceil(wait_s))),),
            )
        wish = Wish(
            arrival_s=now_s,
            client=client,
            trusted=trusted,
            prompt_bytes=len(prompt.text) if prompt is not None else 0,
            tokens=tokens,
            blocks=text_blocks,
            key=key,
            ttft_s=promise.ttft_ms / 1e3,
            ttft_per_token_s=promise.ttft_per_token_ms / 1e3,
            tbt_s=promise.tbt_ms / 1e3,
            priority=0,
            session=None,
            explain=False,
            counted_tokens=tokens,
            tally=self._counters.tally,
        )
        if trusted:
            wishes.heed(wish, request)
        if self._session_header:
            found = request.header(self._session_header)
            wish.session = found[:256].decode("latin-1") if found else None
        return wish, prompt

    def settle(self, wish: Wish, drawn_tokens: int, now_s: float) -> None:
        """What the request really took of its key's limit."""
        if wish.client is not None:
            self._limits.settle(wish.client, wish.tokens, wish.counted_tokens + drawn_tokens, now_s)

    def _who(self, request: Request) -> tuple[Key | None, bool]:
        """Raises Refusal (401)."""
        shown = request.header(b"x-drift-token")
        if shown is not None and self._token and hmac.compare_digest(shown, self._token):
            return None, True
        if self._keys is None:
            return None, False
        client = self._keys.find(request.header(b"authorization") or b"")
        if client is None:
            add(self._counters.rejected, Rejection.UNAUTHORIZED)
            raise Refusal(
                401,
                "Incorrect API key provided, or none; send it as 'Authorization: Bearer KEY'",
                code="invalid_api_key",
                headers=((b"www-authenticate", b"Bearer"),),
            )
        return client, client.trusted


def tenant_of(client: Key | None) -> str:
    """Whose cached prefixes a client shares: its tenant's, else its own."""
    return "" if client is None else client.tenant or f"key/{client.sha256[:16]}"
