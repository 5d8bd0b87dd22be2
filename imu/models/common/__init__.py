"""What several networks, and all that use them, share."""
