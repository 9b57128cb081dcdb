"""The cluster router: one address for many nodes.

    dataplane   sockets and HTTP, on both sides; one request's way through the router
    policies    which node takes a request: pure functions over `snapshots`
    index       what each node's KV cache holds, by the text of prompts and by the names of KV pages
    nodes       what is known of each node: reports, health, circuit breaker, KV events
    discovery   which nodes there are: from a file, or as they are told
    workers     several processes behind one port, the parent that keeps them running, what they tell each other

The router knows an engine by `drift_engine.wire` and `drift_engine.hashing` only. It never loads torch, and stands
in front of any server that speaks the OpenAI API.
"""
