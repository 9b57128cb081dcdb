"""What the engine raises, as one tree.

EngineError
+-- OptionsError      an option's value can't be used
+-- ModelError        the checkpoint can't be used
+-- CapacityError     the machine has not enough memory for what was asked
+-- DeviceError       the device failed
+-- CoreDied          the core process ended
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of everything that the engine raises for people to read: one line that says what to do."""


class OptionsError(EngineError):
    """An option names a field, a value and the limit that it breaks."""


class ModelError(EngineError):
    """A checkpoint is missing, incomplete, damaged or of an unsupported architecture."""


class CapacityError(EngineError):
    """Not enough memory for the model or for one request's KV cache."""


class DeviceError(EngineError):
    """The device refused or failed; carries the driver's code where there is one."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class CoreDied(EngineError):  # noqa: N818 - a fact, not a fault of the caller
    """The core process ended while requests were in flight."""
