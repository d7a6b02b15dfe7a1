"""Recipes: complete named runs, one TOML file each, and the code that runs their stages."""
