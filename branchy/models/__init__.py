"""Architectures with early exits: built, trained, cut into stages and exported. Needs `branchy[train]`."""
