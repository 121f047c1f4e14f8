"""Models in Keras: zoo, branching, training, splitting, export (TensorFlow: here and in engines.keras only)."""
