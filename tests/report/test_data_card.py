"""The section on the data."""

import dataclasses

import numpy as np
from report_facts import make_columns

from trainer.report import data_card


def test_a_text_with_two_labels_is_found_whatever_its_case_and_spaces():
    train = make_columns(["Good film", "bad film", "fine"], np.array([1, 0, 1], np.int32))
    test = make_columns(["good  FILM", "bad film", "other"], np.array([0, 0, 1], np.int32))
    assert data_card.find_contradictions({"train": train, "test": test}) == [[("train", 0), ("test", 0)]]


def test_the_section_counts_and_shows_what_it_found(facts):
    texts = facts.columns["train"].texts
    columns = dict(facts.columns)
    labels = columns["test"].labels
    labels = np.concatenate([1 - facts.columns["train"].labels[:1], labels[1:]])
    columns["test"] = make_columns([texts[0], *columns["test"].texts[1:]], labels)
    columns["test"] = dataclasses.replace(columns["test"], tokens=facts.columns["test"].tokens)
    section = data_card.section(dataclasses.replace(facts, columns=columns))
    assert any("1 text has different labels" in sentence for sentence in section.sentences)
    assert section.passages[0].facts[0] == "different labels"
    assert section.passages[0].pieces[0].text == texts[0]
    counts = {row[0].text: [cell.text for cell in row[1:]] for row in section.tables[0].rows}
    assert counts["examples"] == ["240", "60", "120"]
    assert sum(map(int, (counts["negative"][2], counts["positive"][2]))) == 120


def test_texts_that_do_not_fit_are_counted(facts):
    lengths = np.concatenate([columns.lengths() for columns in facts.columns.values()])
    assert f"{100 * np.mean(lengths > 22):.1f} %" in data_card.describe_coverage(facts)[0]
    fitting = dataclasses.replace(facts, readable_tokens=510)
    assert data_card.describe_coverage(fitting)[0].startswith("Every text fits")


def test_numbers_have_a_section_too(numbers):
    section = data_card.section(numbers)
    assert section.figures
    assert len(section.tables[0].rows) == 4
    assert not any("different labels" in sentence for sentence in section.sentences)  # Nobody looked.


def test_a_part_of_train_is_named(facts):
    manifest = facts.manifest
    train = dataclasses.replace(manifest.splits["train"], examples=10_000)
    larger = dataclasses.replace(manifest, splits={**manifest.splits, "train": train})
    section = data_card.section(dataclasses.replace(facts, manifest=larger))
    assert "its first 240 examples" in section.method[-1]
