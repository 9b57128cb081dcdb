"""What the control plane raises, as one tree.

OperatorError
+-- ManifestError     a DriftService can't be used: one line per problem
+-- LocalError        this machine can't run what the document asks for
+-- NodeDied          a node process ended that nobody asked to end
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
