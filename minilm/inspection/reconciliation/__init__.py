"""Another count of a model, explained as the exact count plus or minus named terms."""
