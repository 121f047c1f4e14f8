"""The bundle on disk: atomic write, digest, verify, load."""
