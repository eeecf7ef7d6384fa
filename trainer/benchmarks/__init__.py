"""HubTune measured as its users run it, beside Hugging Face's Trainer, in turn."""
