"""Weight-only quantization: matrices of 8 or 4 bits per weight in place of 32, and ways to choose the numbers."""
