"""Drift's kernels: for every operation one launcher, a plain-torch reference and a Triton kernel."""
