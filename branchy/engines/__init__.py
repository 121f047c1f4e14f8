"""What runs a stage: LiteRT by default, Keras where its extra is installed."""
