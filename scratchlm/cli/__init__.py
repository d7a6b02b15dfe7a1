"""The command line: parse, build the config, call."""
