"""Training: a configuration becomes a job, the job runs in its model_dir, and the results are reported.

Imports every package above but cloud and tpu_check.
"""
