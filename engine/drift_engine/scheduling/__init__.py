"""Deciding what the device does next: pure functions over immutable views, with time as an argument.

The core (`drift_engine.core.loop`) takes a `views.State` of its requests, asks `planner.plan`, and carries
the `plans.Plan` out. Nothing in this package touches a tensor, a socket or a clock.
"""
