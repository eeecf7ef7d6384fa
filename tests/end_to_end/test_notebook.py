"""examples/classify_text.ipynb: its cells run, and what it shows on the web is complete and ours to show."""

import json
import re

import pytest
from helpers import ROOT, write_reviews
from notebook_outputs import NOTEBOOK, PARAMETERS, SHOWS_TEXTS, printed, read_notebook, run_notebook, tagged

MAX_BYTES = 1_000_000
# The cells' parameters in a folder of its own: a table, and a tiny encoder.
VALUES = """
TASK, SOURCE, ENCODER, CONFIG, DATA, RUN = "csv", {source!r}, {encoder!r}, None, "data", "run"
SETTINGS = {{"training.steps": 60, "data.batch_size": 16, "data.seq_length": 24, "optimizer.learning_rate": 1e-3}}
"""


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_cell_runs_with_a_table_of_ones_own(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = read_notebook()
    values = VALUES.format(source=str(write_reviews(tmp_path / "reviews.csv", 300)), encoder=str(tiny))
    (parameters,) = (cell for cell in notebook.cells if tagged(cell, PARAMETERS))
    parameters.source += values
    run_notebook(notebook, tmp_path, timeout_s=900)
    shown = "\n".join(map(printed, code_cells(notebook)))
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert f"{result['test']['accuracy']:.4f}" in shown
    assert "baseline: TF-IDF + linear" in shown
    assert (tmp_path / "run/export/saved_model.pb").exists()


def test_the_outputs_are_of_a_real_run_with_minilm():
    cells = code_cells(read_notebook())
    (predicted,) = (printed(cell) for cell in cells if "classifier.predict(" in cell.source)
    labels = [line.split()[0] for line in predicted.splitlines()]
    assert (labels[0], labels[-1], len(labels)) == ("positive", "negative", 5)
    (compared,) = (printed(cell) for cell in cells if "baseline=True" in cell.source)
    rows = re.findall(r"^(minilm|baseline)\b.*? 1,060 +\S+ +(\S+)", compared, re.MULTILINE)
    assert float(dict(rows)["minilm"]) > float(dict(rows)["baseline"]) > 0.7


def test_the_outputs_have_a_picture_but_no_texts_of_others_and_no_path():
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    cells = code_cells(read_notebook())
    assert [cell for cell in cells if tagged(cell, SHOWS_TEXTS) and cell.outputs] == []
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert str(ROOT) not in NOTEBOOK.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["data", "configuration", "encoders", "distributed"])
def test_the_pages_that_it_leads_to_exist(page):
    assert f"(../docs/{page}.md)" in NOTEBOOK.read_text(encoding="utf-8")
    assert (ROOT / f"docs/{page}.md").exists()
