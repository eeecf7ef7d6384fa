"""The process around a job: flags and exit codes, installed versions, signals, what a cloud service sets."""
