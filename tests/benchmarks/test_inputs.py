import csv
import json

import pytest

from trainer.benchmarks import inputs
from trainer.benchmarks.inputs import QUICK, Inputs, Settings
from trainer.errors import UserError
from trainer.runtime.signals import Stopped, StopRequest


def open_inputs(tmp_path, **options) -> Inputs:
    return Inputs(Settings("random:tiny", tmp_path / "work", sizes=QUICK), StopRequest(**options))


def test_an_input_is_made_once(tmp_path):
    found = open_inputs(tmp_path)
    path = found.table(30)
    path.write_text("kept", encoding="utf-8")
    assert found.table(30).read_text(encoding="utf-8") == "kept"


def test_an_input_that_was_cut_is_made_again(tmp_path):
    found = open_inputs(tmp_path)
    path = found.table(30)
    path.write_text("cut", encoding="utf-8")
    path.with_name(f"{path.name}.done").unlink()
    assert found.table(30).read_text(encoding="utf-8").startswith("text,label")


def test_an_input_that_cannot_be_made_is_named(tmp_path):
    found = Inputs(Settings("random:tiny", tmp_path / "work", imdb=str(tmp_path / "none")), StopRequest())
    with pytest.raises(UserError, match="reviews_30"):
        found.table(30)
    with pytest.raises(Stopped):
        open_inputs(tmp_path, reason="SIGTERM").table(30)


def test_no_two_rows_of_a_table_are_alike(tmp_path):
    path = tmp_path / "table.csv"
    inputs.write_table(path, 50, "")
    rows = list(csv.reader(path.open(encoding="utf-8")))
    assert rows[0] == ["text", "label"]
    assert len({text for text, _ in rows[1:]}) == 50


def test_reviews_are_repeated_with_other_numbers(tmp_path):
    for name in ("train/pos/1_9.txt", "test/neg/2_1.txt"):
        file = tmp_path / "imdb" / name
        file.parent.mkdir(parents=True)
        file.write_text(f"a review of {name}", encoding="utf-8")
    path = tmp_path / "table.csv"
    inputs.write_table(path, 5, str(tmp_path / "imdb"))
    texts = [text.split(" ", 1) for text, _ in list(csv.reader(path.open(encoding="utf-8")))[1:]]
    assert [number for number, _ in texts] == list("01234")
    assert len({text for _, text in texts}) == 2


def test_the_texts_of_a_data_set_by_split(prepared, tmp_path):
    inputs.write_splits(tmp_path / "texts", str(prepared))
    lines = (tmp_path / "texts/train.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 240
    assert json.loads(lines[0]).keys() == {"text", "label"}
    inputs.write_lines(tmp_path / "lines.txt", str(tmp_path / "texts"), 250)
    assert len((tmp_path / "lines.txt").read_text(encoding="utf-8").splitlines()) == 250


def test_results_of_other_sizes_have_another_fingerprint(tmp_path):
    first, second = (Settings("minilm", tmp_path, sizes=sizes) for sizes in (QUICK, inputs.Sizes()))
    assert first.fingerprint() != second.fingerprint()
    assert json.loads(json.dumps(first.fingerprint())) == first.fingerprint()
