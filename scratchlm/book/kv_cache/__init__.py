"""Chapter 4's generation with a key-value cache, under the names of the book's package."""
