"""The three levers - split, weight, number of nodes - as pure functions of what was observed and when.

    observations    what the channel to nodes and routers brought; what cannot be is unknown
    attainment      the routers' totals become increments, and these the kept share of each promise
    capacity        which request rate a node can carry under the promise, at its best split
    feasibility     whether one request alone could keep the promise
    split, weights, replicas, forecasting, leaving      one decision each
    levers          all of them, on their clocks: `step`

No clock, no socket, no cluster: `now_s` is an argument, and what is to be done is returned.
"""
