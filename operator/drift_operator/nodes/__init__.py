"""The channel to nodes and routers: their reports come in, set-points and promises go out."""
