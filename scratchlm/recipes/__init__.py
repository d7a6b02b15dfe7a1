"""Recipes: complete named runs, with a TOML file each, and the code that runs their stages."""
