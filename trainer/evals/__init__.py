"""Evaluation: predictions of a split, metrics, and the bag-of-words baseline."""
