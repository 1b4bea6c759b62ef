"""What can be said of a graph without changing it: how widths grow, which blocks may be left out."""
