"""Fine-tune base models as classifiers and assistants."""
