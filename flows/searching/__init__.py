"""What a search tries, in which cells, and what came out."""
