"""The bundle on disk: a trained cascade as a directory, written atomically and verified when it is loaded."""
