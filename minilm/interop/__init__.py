"""Conversion to and from other programs: Hugging Face folders, GGUF files, model cards."""
