"""Training: a configuration becomes a job, the job runs in its model_dir, and the results are reported."""
