"""README.md of an exported encoder: what it is, what it was fine-tuned on, how good it was at that, and its limits."""

from collections.abc import Mapping
from typing import Any

from trainer.data.manifests import Manifest
from trainer.report import model_card
from trainer.report.model_card import escape

_LOAD = {
    "hub": [
        "import tensorflow as tf",
        "import tensorflow_hub as hub  # With TF_USE_LEGACY_KERAS=1 in the environment.",
        "import tensorflow_text  # Registers the preprocessor's operators.",
        "",
        'inputs = hub.KerasLayer("FOLDER/preprocess")(tf.constant(["some text"]))',
        'outputs = hub.KerasLayer("FOLDER/encoder", trainable=True)(inputs)',
        'print(outputs["pooled_output"], outputs["sequence_output"])',
    ],
    "hugging_face": [
        "from transformers import AutoModel, AutoTokenizer",
        "",
        'inputs = AutoTokenizer.from_pretrained("FOLDER")(["some text"], return_tensors="pt")',
        'outputs = AutoModel.from_pretrained("FOLDER")(**inputs)',
        "print(outputs.pooler_output, outputs.last_hidden_state)",
    ],
}


def write(manifest: Manifest, result: Mapping[str, Any], *, format_name: str, readable_tokens: int) -> str:
    """The card of the encoder of a finished run, whose result.json is `result`.

    `format_name` is "hub" or "hugging_face"; `readable_tokens` is the most tokens that the run read of an example.
    """
    name = result["encoder"]["name"]
    lines = [
        f"# {escape(name)}, fine-tuned on {escape(manifest.task)}",
        "",
        "A text encoder without a classifier on top: token ids become vectors.",
        "",
        "## Model",
        f"- It was {escape(name)} (SHA-256 `{result['encoder']['sha256'][:16]}`), fine-tuned by HubTune in "
        f"{result['steps']:,} steps with a linear layer on top; the weights are those of step "
        f"{result['best_step']:,}, the best on validation.",
        f"- Texts are {'lower-cased' if manifest.vocabulary.lower_case else 'cased'}; the vocabulary has "
        f"{manifest.vocabulary.size:,} pieces.",
        f"- Terms of the encoder that it was: {model_card.encoder_terms(name)}. Those of the data are its owner's.",
        "",
        *model_card.describe_data(manifest),
        "",
        *model_card.describe_figures(result),
        "They are of the encoder with the linear layer, which is not in this folder.",
        "",
        "## Limits",
        f"- It was fine-tuned to predict {_describe_task(manifest)}. For anything else it was not measured, and may be "
        "worse than the encoder that it was.",
        f"- It was fine-tuned on at most {readable_tokens:,} tokens of an example. Longer ones were not measured.",
        *(f"- {escape(note)}" for note in result.get("notes", [])),
        "",
        "## Use",
        "```python",
        *_LOAD[format_name],
        "```",
    ]
    return "\n".join([*lines, ""])


def _describe_task(manifest: Manifest) -> str:
    if not manifest.labels:
        return "a number"
    names = ", ".join(escape(label) for label in manifest.labels[:10])
    return names + (f" and {len(manifest.labels) - 10} more" if len(manifest.labels) > 10 else "")
