"""A whole cascade in one process, on a virtual clock, from one seed (docs/simulation.md)."""
