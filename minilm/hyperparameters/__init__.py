"""Search for hyperparameters and shapes: `minilm search`."""
