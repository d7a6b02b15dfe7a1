"""The package's variant for several rows; our cache always holds several, so these are the names of `kv_cache`."""
