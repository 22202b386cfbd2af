"""From a PyTorch model to a secure-inference program."""
