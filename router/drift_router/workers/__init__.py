"""Several processes that serve one port, the parent that keeps them running, and what they tell each other."""
