"""A node: the api process in front, the core process behind it, and how they start, fail and stop together."""
