"""The section on using the model and on repeating the run."""

import shlex

from trainer.report.facts import ReportFacts
from trainer.report.page import Cell, Section, Table


def section(facts: ReportFacts) -> Section:
    encoder = facts.result["encoder"]
    rows = [
        [Cell("encoder"), Cell(f"{encoder['name']} ({encoder['path']})")],
        [Cell("encoder, SHA-256"), Cell(encoder["sha256"][:16])],
        [Cell("data, fingerprint"), Cell(facts.result["data_fingerprint"][:16])],
        [Cell("export against job, largest difference"), Cell(f"{facts.result['export_difference']:.1e}")],
        *([Cell(key), Cell(str(value))] for key, value in facts.settings.items()),
    ]
    return Section(
        "use",
        "Use it, repeat it",
        ["The export takes plain text; its vocabulary is inside."],
        code=[load_code(facts), f"{predict_command(facts)}\n\n# the same run again, in a new folder\n{facts.command}"],
        tables=[Table("What the run was of, and its settings that are not the defaults", [], rows)],
    )


def predict_command(facts: ReportFacts) -> str:
    text = r"$'the first text\tthe second'" if facts.manifest.texts == 2 else "'some text'"
    return f"python scripts/predict.py --model={shlex.quote(facts.export)} {text}"


def load_code(facts: ReportFacts) -> str:
    """Python that loads the export and predicts."""
    pair = facts.manifest.texts == 2
    arguments = "text=tf.constant(['some text'])"
    if pair:
        arguments = "text=tf.constant(['the first text']), text_pair=tf.constant(['the second text'])"
    labels = "outputs['labels'], " if facts.manifest.labels else ""
    return "\n".join(
        [
            "import tensorflow as tf",
            "import tensorflow_text  # registers the tokenizer's operators",
            "",
            f"model = tf.saved_model.load({facts.export!r})",
            "predict = model.signatures['serving_default']",
            f"outputs = predict({arguments})",
            f"print({labels}outputs['scores'])",
        ]
    )
