"""What logging.mlflow and logging.wandb may be: a word that switches a sink on or off, or where it logs to."""

from typing import Any

ON, OFF = "true", ""  # What the words are read as. Anything else names a target.
ON_WORDS = ("on", "true", "yes")
OFF_WORDS = ("off", "false", "no", "none", "")
REQUIRED = f"be {', '.join(ON_WORDS)}, {', '.join(filter(None, OFF_WORDS))}, or where to log to"


def read_target(value: Any) -> str | None:
    """ON, OFF or the target as it is written; None for what is no text. YAML's booleans and its null are words too."""
    if value is not None and not isinstance(value, str | bool):
        return None
    word = str(value).strip().lower()
    return ON if word in ON_WORDS else OFF if word in OFF_WORDS else str(value)
