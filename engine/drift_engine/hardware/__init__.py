"""How long a forward pass takes on hardware that need not be there, for simulations.

`profiles.named` gives what is known about a GPU, `shapes.read` what a pass of a model computes, and `Roofline` brings
both together: seconds of a pass (`latency.loads.Load`) on a lane of so many SMs, alone or beside another lane. Pure
arithmetic: no torch, no clock, no device. `profiles/README.md` says where the numbers come from and what they miss.
"""

from drift_engine.hardware.profiles import Hardware, named, splits
from drift_engine.hardware.roofline import Roofline
from drift_engine.hardware.shapes import ModelShape, read

__all__ = ["Hardware", "ModelShape", "Roofline", "named", "read", "splits"]
