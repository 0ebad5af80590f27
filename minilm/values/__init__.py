"""The values of checkpoints, streamed from their files: statistics of one, differences of two."""
