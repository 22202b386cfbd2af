"""Sentiment of film reviews: a MiniLM fine-tuned with its first layers frozen, to be compiled by mpcc."""
