"""The SavedModel that takes text: writing it, and scoring texts with it.

Imports data and storage.
"""
