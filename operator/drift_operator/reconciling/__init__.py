"""From what is seen to what is to be done: pure, with time as an argument. Effects are in `cluster` and `nodes`."""
