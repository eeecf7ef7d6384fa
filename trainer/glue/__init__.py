"""The GLUE benchmark: its tasks trained with several seeds, their scores on dev, and the submission.

Nothing that trains imports it.
"""
