"""Memory, FLOPs and activations of a model, and what fits in a budget of memory."""
