"""Complete named runs, one TOML file each."""
