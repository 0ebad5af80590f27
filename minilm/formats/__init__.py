"""What is in a weights file, from its header alone."""
