"""Drift's engine: one node that serves one model (api process, core process, model, KV cache, planner)."""
