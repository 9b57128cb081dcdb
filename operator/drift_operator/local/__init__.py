"""A service on this machine: processes for pods, beside the operator's own loop."""
