"""External files (data sets, tokenizer files, weights), known by name, found on this machine or downloaded."""
