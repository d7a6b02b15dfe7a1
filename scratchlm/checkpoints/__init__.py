"""Save models and load them again, from our own folders and the formats of other programs."""
