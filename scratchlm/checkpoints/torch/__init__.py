"""Read PyTorch's and NumPy's own files without running code in them."""
