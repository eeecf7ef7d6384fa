"""Exports: write the SavedModel that takes text, and score texts with it.

Imports data, storage and errors.
"""
