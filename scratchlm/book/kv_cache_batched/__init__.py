"""The variant for several rows; `kv_cache` supports them anyway, so these are its names."""
