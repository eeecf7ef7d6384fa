"""README.md of an exported encoder."""

import ast
import re

import pytest

from trainer.data.labels import format_number
from trainer.report import encoder_card


def write(facts, format_name="hub", **changes):
    result = {**facts.result, **changes}
    return encoder_card.write(facts.manifest, result, format_name=format_name, readable_tokens=62)


def test_the_card_has_the_data_the_figures_and_the_limits(facts):
    card = write(facts, notes=["validation is small"])
    for split, content in facts.manifest.splits.items():
        assert f"- {split}: {content.examples:,} examples" in card
    accuracy = re.escape(format_number(facts.result["test"]["accuracy"]))
    assert re.search(rf"^\| accuracy \| \S+ \| {accuracy} \|$", card, re.MULTILINE)
    limits = card.partition("## Limits")[2]
    assert "at most 62 tokens" in limits
    assert "- validation is small" in limits
    assert all(label in limits for label in facts.manifest.labels)


def test_the_card_has_the_terms_of_the_parent(facts):
    assert "does not know" in write(facts)
    assert "Apache 2.0" in write(facts, encoder={**facts.result["encoder"], "name": "minilm"})


def test_the_card_of_numbers_names_no_classes(numbers):
    assert "fine-tuned to predict a number" in write(numbers)


@pytest.mark.parametrize(("format_name", "library"), [("hub", "tensorflow_hub"), ("hugging_face", "transformers")])
def test_the_code_is_of_the_format(facts, format_name, library):
    (code,) = re.findall(r"```python\n(.*?)```", write(facts, format_name), re.DOTALL)
    ast.parse(code)
    assert library in code


def test_a_name_cannot_write_markdown(facts):
    card = write(facts, encoder={**facts.result["encoder"], "name": "<b>x</b>\n# d"})
    assert "<b>" not in card.replace("\\<", "")
    assert "\n# d" not in card
