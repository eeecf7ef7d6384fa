"""The report of a run: report.html, one file that needs no network, and model_card.md. Plain values in, text out."""
