"""Quantized checkpoints: from the stored tensors of each method to the model's own tensors."""
