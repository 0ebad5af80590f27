"""Training: prepare (train), step (loop), measure (evaluation, metrics), survive (state, stopping)."""
