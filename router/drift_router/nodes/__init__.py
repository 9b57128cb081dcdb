"""How each node does: reports, health, circuit breakers, KV events."""
