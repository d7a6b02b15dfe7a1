"""Save and load models, in our own folders and in the formats of other programs."""
