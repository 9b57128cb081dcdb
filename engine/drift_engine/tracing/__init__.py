"""Spans of requests for OpenTelemetry, where somebody asks for them.

`options` says whether; `starting` loads the libraries, which nothing else does; `recording` begins and ends spans;
`exporting` hands them to a collector in a thread of its own. What a request's spans are is said by who serves it.
"""
