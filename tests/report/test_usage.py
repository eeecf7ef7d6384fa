"""How to use the model and repeat the run."""

import ast
import dataclasses

from trainer.report import usage


def test_the_code_parses_and_names_the_export(facts):
    awkward = dataclasses.replace(facts, export="runs/it's [1]\\x/export")
    code = usage.load_code(awkward)
    strings = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    assert "runs/it's [1]\\x/export" in strings


def test_a_pair_is_given_as_two_texts(facts):
    pairs = dataclasses.replace(facts, manifest=dataclasses.replace(facts.manifest, texts=2))
    assert "text_pair=" in usage.load_code(pairs)
    assert r"\t" in usage.predict_command(pairs)


def test_the_section_has_command_and_settings(facts):
    section = usage.section(facts)
    assert facts.command in section.code[1]
    assert ["training.steps", "100"] in [[cell.text for cell in row] for row in section.tables[0].rows]


def test_numbers_show_their_scores(numbers):
    assert "labels" not in usage.load_code(numbers)
