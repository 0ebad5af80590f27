"""Several processes on one run: who they are, and how model, gradients and state are shared out."""
