"""Flags and wiring only; one file a command, loaded lazily."""

FORMATS = ("litert", "litert-float16", "litert-int8", "keras")
"""What a stage can be exported in: `core.cascade.FormatName`, without loading numpy for a flag."""
