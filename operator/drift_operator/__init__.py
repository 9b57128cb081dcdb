"""Drift's control plane: the DriftService resource and what turns it into running nodes."""
