"""The transformer: architecture only. Training, quantization and export act on it from outside."""
