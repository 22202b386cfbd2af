"""What a compiled program can be turned into."""
