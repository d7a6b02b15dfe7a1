"""Turn text into batches: sources, windows, shards, labelled texts, instructions, generated sample data."""
