"""The model's forward pass in C, compiled for this machine at its first use."""
