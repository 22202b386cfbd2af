"""mpcc: compiles PyTorch transformers into secure-inference programs."""
