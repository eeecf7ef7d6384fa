"""Encoders: found by name, rebuilt natively, converted from other formats, and the classifier on top.

Imports errors and storage.
"""
