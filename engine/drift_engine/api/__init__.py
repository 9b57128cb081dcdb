"""The HTTP side of a node: OpenAI-compatible API, metrics, and the control port."""
