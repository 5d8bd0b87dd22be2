"""How the flow ``erase`` serves a request; what is kept of it lies in ``tasks.erasing``."""
