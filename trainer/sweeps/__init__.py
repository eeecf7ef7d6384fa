"""Many runs of one job with other settings and seeds, on this machine or as submitted jobs.

Used by scripts/sweep.py alone.
"""
