"""Shared ground: errors, protocols, configuration, files, randomness, devices, assets."""
