"""Which node takes a request: pure functions from snapshots to decisions, one module for each policy.

    choosing (who may) -> predicting (what it would see there) -> cache_aware | prefix_hash | round_robin

`waiting` is the queue of requests that no node can take in time, `warming` and `fading` are two curves over time
whose values the caller keeps in the snapshots.
"""
