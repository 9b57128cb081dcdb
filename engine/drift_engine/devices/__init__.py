"""Where passes run. `base` is the seam that the core and the planner know; each device implements it."""
