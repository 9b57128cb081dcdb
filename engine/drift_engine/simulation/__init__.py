"""Nodes, requests and time that exist in memory only: what would happen, without a GPU and faster than it would.

    arrivals (`bench.shaping`) -> dispatching -> nodes -> records -> `bench.metrics` -> `bench.results`

A simulated node is the real core, with its planner, prefix cache and latency model, on a device that knows how long
things take (`devices.sim`). `running` puts a run together, `sweeping` finds the highest rate that keeps a promise.
"""
