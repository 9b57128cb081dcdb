"""The `drift` command-line tool."""
