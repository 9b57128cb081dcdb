"""What each node's KV cache holds: pure data, fed by events and asked once for every request."""
