"""Load against an OpenAI-compatible server, and what a run measured.

    traces -> shaping -> preparing -> replaying (one `streaming` task per request) -> records -> metrics -> results
                                                 results, records -> series -> panels -> pictures -> drawing

`traces`, `shaping`, `texts`, `records`, `metrics`, `results`, `comparing`, `series`, `panels` and `pictures` are free
of network code, so that the simulator reads the same traces and writes the same log and the same result. `running`
puts a whole run together.
"""
