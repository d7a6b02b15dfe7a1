"""The reader's script is run by its test, not collected."""

collect_ignore = ["reader_script.py"]
