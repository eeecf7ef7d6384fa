"""Data sets: from rows in files to shards, and from shards to batches of model inputs."""
