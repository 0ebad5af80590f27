"""The ledger: every tensor of a model declared once, symbolically; counts and formulas follow."""
