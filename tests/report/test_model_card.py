"""model_card.md."""

import ast
import dataclasses
import re

from trainer.data.labels import format_number
from trainer.report import model_card


def test_every_figure_of_test_is_in_the_table(facts):
    card = model_card.write(facts)
    for metric, value in facts.result["test"].items():
        expected = f"{value:,}" if isinstance(value, int) else format_number(value)
        assert re.search(rf"^\| {metric.replace('_', ' ')} \| \S+ \| {re.escape(expected)} \|$", card, re.MULTILINE)


def test_the_code_parses(facts):
    (code,) = re.findall(r"```python\n(.*?)```", model_card.write(facts), re.DOTALL)
    ast.parse(code)


def test_a_name_cannot_write_markdown(facts):
    name = "<script>x</script> [a](b) | `c`\n# d"
    result = {**facts.result, "encoder": {**facts.result["encoder"], "name": name}}
    card = model_card.write(dataclasses.replace(facts, result=result))
    assert "<script>" not in card.replace("\\<", "")
    assert "\n# d" not in card


def test_the_terms_of_a_known_encoder_are_named(facts):
    assert "does not know" in model_card.write(facts)
    result = {**facts.result, "encoder": {**facts.result["encoder"], "name": "minilm"}}
    assert "Apache 2.0" in model_card.write(dataclasses.replace(facts, result=result))


def test_the_limits_have_calibration_and_truncation(facts, numbers):
    limits = " ".join(model_card.limits(facts))
    assert "confident" in limits
    assert "longer than what the model reads" in limits
    (limit,) = [line for line in model_card.limits(numbers) if "tokens" in line]
    assert "longer than what the model reads, 22 tokens" in limit
