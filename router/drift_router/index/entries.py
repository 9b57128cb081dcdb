"""What an entry of the index's tables costs, for keeping their sum within its limit.

Measured by benchmarks/router/index.py at the worst fill of a table, just after it has grown. Tables of the
interpreter have no size of their own that falls when entries go, so that the count of entries is what can be kept.
"""

from __future__ import annotations

TABLE_BYTES = 152
"""Of a dict from a name to a mask of nodes: the name 48, the mask 48, the place in the table up to 56."""

ORDERED_BYTES = 232
"""Of an OrderedDict from a name to a name, each an object of its own."""

SHARED_BYTES = 184
"""Of an OrderedDict from a name to a number that many share."""

SET_BYTES = 104
"""Of a set of names: the name 48, its place up to 56."""
