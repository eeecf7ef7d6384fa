"""The figure of docs/benchmarks.md: labels that were flipped on purpose are among the likely label errors."""

import csv
import json
import random

import pytest
from helpers import ROOT, python

from trainer.data import movie_reviews

MINILM = ROOT / "encoders/minilm"
pytestmark = [pytest.mark.chaos, pytest.mark.skipif(not MINILM.is_dir(), reason="needs make encoders/minilm")]
FLIPPED_SHARE, LISTED_SHARE = 0.02, 0.04


def test_half_of_the_flipped_labels_are_in_the_first_four_percent(tmp_path):
    rows = list(movie_reviews.read_movie_snippets(ratings=False))
    flipped = set(random.Random(7).sample(range(len(rows)), round(FLIPPED_SHARE * len(rows))))
    names = ("negative", "positive")
    with (tmp_path / "snippets.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i, row in enumerate(rows):
            writer.writerow([row.text, names[names.index(str(row.label)) ^ (i in flipped)]])
    data, run = tmp_path / "data", tmp_path / "run"
    prepare = ("--task=csv", f"--source={tmp_path / 'snippets.csv'}", f"--encoder={MINILM}", f"--output={data}")
    python("scripts/prepare_data.py", *prepare, check=True)
    where = (f"--encoder={MINILM}", f"--data_dir={data}", f"--model_dir={run}")
    python("-m", "trainer.task", "--config=configs/quickstart.yaml", *where, check=True, timeout=1800)
    found = {False: read_suspects(run)}
    python("-m", "trainer.task", "--mode=report", "--cross_check", f"--model_dir={run}", check=True, timeout=1800)
    found[True] = read_suspects(run)
    texts = {rows[i].text for i in flipped}
    for cross_check, suspects in found.items():
        splits = {suspect["split"] for suspect in suspects}
        assert ("train" in splits) == cross_check
        looked_at = len(rows) if cross_check else round(0.2 * len(rows))
        assert len(suspects) <= LISTED_SHARE * looked_at + 2
        share = sum(suspect["text"] in texts for suspect in suspects) / (FLIPPED_SHARE * looked_at)
        print(
            f"cross-check {cross_check}: {len(suspects)} listed of {looked_at}, {share:.2f} of the flipped ones found"
        )
        assert share >= 0.5


def read_suspects(run):
    return [json.loads(line) for line in (run / "label_errors.jsonl").read_text(encoding="utf-8").splitlines()]
