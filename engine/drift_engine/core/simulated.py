"""The start of a core that only takes its time: a GPU node's stand-in, behind the same server. Free of torch."""

from __future__ import annotations

import time
from pathlib import Path

from tokenizers import Tokenizer

from drift_engine import models, wire
from drift_engine.cache import KvCache
from drift_engine.clock import MonotonicClock, VirtualClock
from drift_engine.core import calibrating, learned, resolving
from drift_engine.core.channel import Messages
from drift_engine.core.grammars import Grammars
from drift_engine.core.loop import Core
from drift_engine.core.serving import Started
from drift_engine.devices.sim import SimDevice, Sleeper, Tokens
from drift_engine.devices.sim_tokens import CountedTokens, PagedTokens
from drift_engine.errors import CapacityError
from drift_engine.hardware import profiles, shapes
from drift_engine.hardware.roofline import Roofline
from drift_engine.options import NodeOptions

MOST_WORDS = 4096
"""Of a vocabulary are enough to say different things with."""


def start(options: NodeOptions, model_path: Path, channel: Messages) -> Started:
    """Tokenizer and limits are the served model's, times `sim_model`'s on `sim_hardware`. Raises EngineError."""
    start_s = time.monotonic()
    profile, shape = profiles.named(options.sim_hardware), shapes.read(options.sim_model)
    served = models.read_config(model_path)
    page_tokens = options.page_tokens
    kv_bytes = (
        shape.kv_tokens(profile) * shape.kv_bytes_per_token if options.kv_bytes is None else options.kv_bytes
    )
    kv_pages = kv_bytes // (page_tokens * shape.kv_bytes_per_token)
    if kv_pages < 2:
        raise CapacityError(
            f"kv_bytes: {kv_bytes} bytes hold {kv_pages} pages of {page_tokens} tokens of {options.sim_model}; "
            "at least 2 are needed"
        )
    context = min(resolving.context_of(options, served.longest_context_tokens), kv_pages * page_tokens)
    max_step_tokens = resolving.max_step_tokens(options, "sim")

    def device(clock: Sleeper, tokens: Tokens) -> SimDevice:
        return SimDevice(
            clock,
            Roofline(profile, shape),
            tokens,
            sms=profile.sms,
            splits=profiles.splits(profile),
            layers=shape.num_layers,
        )

    bounds = calibrating.Bounds(
        kv_tokens=kv_pages * page_tokens,
        page_tokens=page_tokens,
        max_context_tokens=context,
        max_rows=options.max_running,
        max_step_tokens=max_step_tokens,
        budget_s=calibrating.BUDGET_S["cuda"],
    )
    # In virtual time what takes a GPU a minute takes a moment.
    latency = learned.calibrate(device(VirtualClock(), CountedTokens()), bounds, shape.pairs_share)
    serving = device(
        MonotonicClock(),
        PagedTokens(page_tokens, _words(model_path, served.vocab_size), served.eos_token_ids),
    )
    core = Core(
        serving,
        KvCache(kv_pages, page_tokens, prefix=options.prefix_cache),
        channel,
        Grammars(model_path, served.vocab_size, served.eos_token_ids),
        options.mode,
        resolving.limits(
            options,
            max_model_len_tokens=context,
            max_step_tokens=max_step_tokens,
            eos_token_ids=served.eos_token_ids,
            layers=shape.num_layers,
        ),
        options.slo.targets,
        latency,
    )
    ready = wire.Ready(
        architecture=served.architecture,
        parameters=shape.parameters,
        vocab_size=served.vocab_size,
        max_model_len_tokens=context,
        eos_token_ids=tuple(served.eos_token_ids),
        device="sim",
        hardware=f"simulated {profile.name} with {options.sim_model}",
        dtype=resolving.dtype_of(options, "sim"),
        threads=1,
        page_tokens=page_tokens,
        kv_pages=kv_pages,
        kv_bytes=kv_pages * page_tokens * shape.kv_bytes_per_token,
        mode=options.mode,
        load_s=time.monotonic() - start_s,
        splits=resolving.legal_splits(options, serving),
        sharing=serving.sharing,
        sharing_reason=serving.sharing_reason,
    )
    return Started(core, serving, ready, latency, lambda: None)


def _words(model_path: Path, vocab_size: int) -> list[int]:
    """Tokens that are plain text by themselves, so that what is said can be read, sent and compared."""
    tokenizer = Tokenizer.from_file(str(model_path / "tokenizer.json"))
    special = set(tokenizer.get_added_tokens_decoder())
    found: list[int] = []
    for token_id in range(min(vocab_size, tokenizer.get_vocab_size())):
        text = "" if token_id in special else tokenizer.decode([token_id])
        if text.strip() and text.isascii() and text.isprintable():
            found.append(token_id)
        if len(found) == MOST_WORDS:
            break
    return found or [token_id for token_id in range(vocab_size) if token_id not in special]
