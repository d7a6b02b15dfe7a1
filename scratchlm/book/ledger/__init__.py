"""The book's figures, and the code that recomputes each of them on this machine."""
