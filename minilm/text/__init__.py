"""Corpora, their cleaning, and tokenizers, without torch."""
