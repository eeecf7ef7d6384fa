"""Encoders rebuilt and measured: how close to the original, and how fast beside hub.KerasLayer.

Used by scripts/check_encoders.py alone.
"""
