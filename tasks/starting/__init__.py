"""How a stage's process starts and ends."""
