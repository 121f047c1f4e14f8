"""Flags and wiring only; one file a command, loaded lazily."""
