"""What changes a model from outside: the model itself knows of none of it."""
