"""Files of others (data sets, tokenizer files, weights): known by name, found here or fetched and checked."""
