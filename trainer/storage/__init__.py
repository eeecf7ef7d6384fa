"""Files, local or in a bucket: reading, writing, locking, and checks before a run starts."""
