"""Data sets as numpy arrays, without TensorFlow: a device reads them too."""
