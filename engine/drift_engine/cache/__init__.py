"""The paged KV cache's books: which page holds which tokens, and who may use it.

The scheduler asks (`match`, `can_reserve`), commits (`open`, `reserve`) and, once a step has written
its tokens, publishes. `kv_cache` joins the free pages and the open sequences with the prefix tree of `tree`, and
`drift_engine.hashing` names blocks for the world outside. Nothing here touches a tensor.
"""

from drift_engine.cache.kv_cache import KvCache, Match, OutOfPages
from drift_engine.cache.sequence import Sequence

__all__ = ["KvCache", "Match", "OutOfPages", "Sequence"]
