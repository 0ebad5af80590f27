"""What is said of parameters, tested on a model: one protocol, and one file a claim (docs/claims.md)."""
