"""Finished runs compared with each other on the same test texts.

Used by scripts/compare.py alone.
"""
