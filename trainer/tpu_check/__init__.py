"""A tool for development: compile the train and evaluation steps for TPUs on a machine without one.

Nothing that trains imports it.
"""
