"""model_card.md: what the model is, what it was made from, how good it is, its limits, and how to use it.

The headings are those of "Model Cards for Model Reporting" (Mitchell et al., 2019), as far as a run knows them.
"""

from collections.abc import Mapping
from typing import Any

from trainer.data.labels import format_figure
from trainer.data.manifests import Manifest
from trainer.encoders.embedded import EMBEDDED
from trainer.report import calibration, comparison, data_card, usage
from trainer.report.facts import ReportFacts

# What is known of the terms of encoders that can be named.
LICENSES = {name: f"{embedded.terms} ({embedded.model})" for name, embedded in EMBEDDED.items()}
_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>#|$~"})


def escape(text: str) -> str:
    """A text in one line, in which nothing is Markdown or HTML."""
    return " ".join(text.split()).translate(_SPECIAL)


def encoder_terms(name: str) -> str:
    """The license of the encoder of this name."""
    return LICENSES.get(name, "that of the encoder, which this run does not know: look at where it came from")


def write(facts: ReportFacts) -> str:
    """The card."""
    result, manifest = facts.result, facts.manifest
    name = result["encoder"]["name"]
    lines = [
        f"# {escape(manifest.task)}: {escape(name)}",
        "",
        escape(comparison.describe_model(facts)),
        *([escape(worth)] if (worth := comparison.describe_worth(facts)) else []),
        "",
        "## Model",
        f"- A text encoder ({escape(name)}, SHA-256 `{result['encoder']['sha256'][:16]}`), fine-tuned by HubTune in "
        f"{result['steps']:,} steps; the weights are those of step {result['best_step']:,}, the best by validation "
        f"{facts.metric.replace('_', ' ')}.",
        f"- It reads {facts.readable_tokens:,} tokens of an example; the rest of a longer one is left out.",
        f"- Terms of the encoder: {encoder_terms(name)}. Those of the data are its owner's.",
        "",
        *describe_data(manifest),
        f"- Fingerprint: `{result['data_fingerprint'][:16]}`",
        "",
        *describe_figures(result),
        "",
        "## Limits",
        *(f"- {escape(limit)}" for limit in limits(facts)),
        "",
        "## Use",
        "```python",
        usage.load_code(facts),
        "```",
        "",
    ]
    return "\n".join(lines)


def describe_data(manifest: Manifest) -> list[str]:
    """The section with the size of each split."""
    return [
        "## Data",
        *(
            f"- {split}: {content.examples:,} examples"
            + ("" if not content.label_counts else f" ({_counts(content.label_counts)})")
            for split, content in manifest.splits.items()
        ),
    ]


def describe_figures(result: Mapping[str, Any]) -> list[str]:
    """The section with the metrics of result.json."""
    validation = result["validation"]
    return [
        "## Figures",
        "| | validation | test |",
        "| --- | --- | --- |",
        *(
            f"| {metric.replace('_', ' ')} | {format_figure(validation.get(metric))} | {format_figure(value)} |"
            for metric, value in result["test"].items()
        ),
        "",
        "Test was read once, at the end, with the weights that were best on validation.",
    ]


def _counts(counts: dict[str, int]) -> str:
    shown = sorted(counts.items(), key=lambda item: -item[1])[:10]
    more = f", {len(counts) - 10} more classes" if len(counts) > 10 else ""
    return ", ".join(f"{escape(name)} {count:,}" for name, count in shown) + more


def limits(facts: ReportFacts) -> list[str]:
    """What a user of the model has to know."""
    said = ["It is as good as this on texts like those it was tested on; on others, nothing is known."]
    if found := calibration.section(facts):
        said += found.sentences
    said += data_card.describe_coverage(facts)
    said += facts.result.get("notes", [])
    return said
