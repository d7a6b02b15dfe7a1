"""PyTorch's and NumPy's own files, read without running anything that they hold."""
