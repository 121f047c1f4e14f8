"""Every decision of branchy: no I/O, no clock of its own."""
