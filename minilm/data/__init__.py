"""Data: corpora as memory-mapped token shards, and batches drawn from them. No torch in here."""
