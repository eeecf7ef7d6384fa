"""The report's files."""

import dataclasses
import re

import numpy as np
import pytest

from trainer.report import build
from trainer.runtime import signals

CLASS_SECTIONS = ["result", "classes", "calibration", "slices", "errors", "labels", "data", "training", "cost", "use"]


def sections(page):
    return re.findall(r'<section id="(\w+)">', page)


def test_a_kind_has_its_sections(facts, numbers):
    assert sections(build.build_page(facts)) == CLASS_SECTIONS
    assert sections(build.build_page(numbers)) == [
        "result",
        "numbers",
        "slices",
        "errors",
        "data",
        "training",
        "cost",
        "use",
    ]


def test_the_ids_of_a_page_are_different(facts):
    ids = re.findall(r'\bid="([^"]*)"', build.build_page(facts))
    assert len(ids) == len(set(ids))


def test_a_section_that_fails_costs_no_other(facts, caplog):
    broken = dataclasses.replace(facts, predictions={**facts.predictions, "validation": None})
    found = sections(build.build_page(broken))
    assert set(CLASS_SECTIONS) - set(found) == {"calibration", "labels"}
    assert "calibration" in caplog.text


def test_a_file_that_fails_costs_no_other(facts, caplog):
    result = {key: value for key, value in facts.result.items() if key != "data_fingerprint"}
    files = build.build_files(dataclasses.replace(facts, result=result))
    assert files.keys() == {"report.html", "label_errors.jsonl"}
    assert "the report has no model_card.md: KeyError" in caplog.text


def test_hostile_texts_are_no_elements(facts):
    test = facts.columns["test"]
    texts = ['<script>alert("x")</script>' * 3 for _ in test.texts]
    page = build.build_page(
        dataclasses.replace(facts, columns={**facts.columns, "test": dataclasses.replace(test, texts=texts)})
    )
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_stop_ends_the_work(facts):
    def stop():
        raise signals.Stopped("SIGTERM")

    with pytest.raises(signals.Stopped):
        build.build_files(facts, stop)


def test_the_files_are_page_card_and_label_errors(facts, numbers):
    assert set(build.build_files(facts)) == {"report.html", "model_card.md", "label_errors.jsonl"}
    assert set(build.build_files(numbers)) == {"report.html", "model_card.md"}


def test_several_labels_have_the_sections_that_they_can(facts):
    labels = {name: np.eye(2, dtype=bool)[columns.labels] for name, columns in facts.columns.items()}
    scores = {"precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 60}
    several = dataclasses.replace(
        facts,
        manifest=dataclasses.replace(facts.manifest, kind="multi_label"),
        result={
            **facts.result,
            "test": {"examples": 120, "loss": 0.3, "micro_f1": 0.9},
            "test_classes": {"by_class": dict.fromkeys(facts.manifest.labels, scores)},
        },
        metric="micro_f1",
        columns={n: dataclasses.replace(columns, labels=labels[n]) for n, columns in facts.columns.items()},
        predictions={n: dataclasses.replace(p, labels=labels[n]) for n, p in facts.predictions.items()},
        baseline=None,
    )
    page = build.build_page(several)
    assert sections(page) == ["result", "classes", "data", "training", "cost", "use"]
    assert 'data-value="class.1.f1"><bdi>0.8500' in page
    assert set(build.build_files(several)) == {"report.html", "model_card.md"}
