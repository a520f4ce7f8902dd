"""Parts of a graph that other clients hold: sums of neighbours, shared similar nodes, generated neighbours."""
