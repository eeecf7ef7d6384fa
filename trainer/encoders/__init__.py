"""Text encoders: find one by name, import it from other formats, rebuild it natively, and put a classifier on top."""
