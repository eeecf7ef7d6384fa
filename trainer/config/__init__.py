"""The configuration: its keys, and how a file, flags and defaults become one."""
