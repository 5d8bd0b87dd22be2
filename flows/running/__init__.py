"""How flows run things: stages, children, pools, cells, one run at a time."""
