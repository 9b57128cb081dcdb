"""The console: what its page shows (pure: `model`, `trails`, `verdicts`) and the page itself (`page/`).

In: what is known of all services now (`seen.Known`, given by whoever keeps them). Out: one JSON document that has all
of it, so that a lost message costs nothing. `doors.console` serves it.
"""
