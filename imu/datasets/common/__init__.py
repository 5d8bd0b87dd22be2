"""What several data sets share: how images are read, packed, and put on a device."""
