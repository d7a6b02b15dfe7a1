"""The command line: each command parses its flags, builds a config and calls the library."""
