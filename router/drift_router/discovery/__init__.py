"""Which nodes there are: sources of address lists. Each tells all the nodes at a time, never changes of them."""
