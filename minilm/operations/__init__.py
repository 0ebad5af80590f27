"""What is done to trained models: a folder in, a new folder out, with what it changed."""
