"""The core process: scheduler, model and KV cache of a node. It never blocks on a socket.

`process` starts it, `loop` is its step, `requests` holds a request's life, `channel` is its end of the socket.
"""
