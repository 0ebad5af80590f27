"""A run folder: its files, its logs, and what they say."""
