"""What happens inside a model while it reads: attention, and how sure it was of every token."""
