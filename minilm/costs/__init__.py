"""What a model costs: memory, FLOPs, activations, and what fits a budget."""
