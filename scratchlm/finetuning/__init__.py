"""Base models to specialists: classifiers and assistants."""
