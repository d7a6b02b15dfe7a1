"""Models to people: the Python door, chat, web."""
