"""Models to disk and back: whole or not at all, checked on the way in."""
