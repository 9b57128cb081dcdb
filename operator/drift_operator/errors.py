"""What the control plane raises, as one tree.

OperatorError
+-- ManifestError     a DriftService can't be used: one line per problem
+-- LocalError        this machine can't run what the document asks for
+-- NodeDied          a node process ended that nobody asked to end
+-- OptionsError      the operator was asked to run in a way that it can't
+-- ClusterError      a cluster did not become what it was asked to be
+-- PlaceError        where pods live, something can't be done now
"""

from __future__ import annotations

from collections.abc import Sequence


class OperatorError(Exception):
    """Base of everything that the control plane raises for people to read."""


class ManifestError(OperatorError):
    """A document names a field, a value and the limit that it breaks; one line per problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class LocalError(OperatorError):
    """A sound document that needs what a local run does not have."""


class NodeDied(OperatorError):  # noqa: N818 - a fact, not a fault of the caller
    """A node process ended by itself."""


class OptionsError(OperatorError):
    """An option names a field, a value and the limit that it breaks."""


class ClusterError(OperatorError):
    """What was applied to a cluster did not come about in time, or not as it should."""


class PlaceError(OperatorError):
    """Where a service's pods live, something was refused or not answered; worth another try later."""

    retry_after_s: float | None = None
    """How long it asks to be left alone; None: it does not say."""
