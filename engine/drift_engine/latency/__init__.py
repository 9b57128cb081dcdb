"""The latency model: how long a pass takes on how many SMs, alone or beside another lane's work.

`LatencyModel` predicts and learns; `Load` is what a pass computes. A node may calibrate it (`fitting`), start it from
a prior, or from what an earlier run saved (`saved`); with
none of these it learns from its first passes. Pure: no torch, no clock, no device.
"""

from drift_engine.latency.accuracy import Errors
from drift_engine.latency.loads import Kind, Load
from drift_engine.latency.model import LatencyModel

__all__ = ["Errors", "Kind", "LatencyModel", "Load"]
