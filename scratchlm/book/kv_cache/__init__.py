"""The package's variants of chapter 4's generation with a key-value cache, on our model and cache."""
