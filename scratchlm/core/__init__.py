"""Shared foundations of all other folders: errors, protocols, configuration, files, random seeds, devices."""
