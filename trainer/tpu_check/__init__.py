"""A tool for development: compiles the steps for TPUs on a machine without one.

Nothing that trains imports it.
"""
