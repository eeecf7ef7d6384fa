"""Exports: write the SavedModel that takes text, and score texts with it."""
