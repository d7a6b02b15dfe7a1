"""Text to batches: sources, windows, shards, labelled texts, instructions, and sample data of our own."""
