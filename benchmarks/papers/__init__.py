"""The tables of the BranchyNet paper again: its three networks, trained and timed here (`docs/results.md`)."""
