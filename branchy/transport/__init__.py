"""How messages travel: one contract, `memory` and `kafka`."""
