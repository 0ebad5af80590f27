"""What acts on a model from outside: its modules are replaced, and can be put back."""
