"""Evaluation of 25,000 texts counts each once and agrees with scikit-learn, for any batch size and number of replicas.

It takes two minutes and is part of `make chaos`.
"""

import json
import random

import pytest
import sklearn.metrics
from helpers import python, review

TEXTS = 25_000


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """The model_dir of a short job whose test split has TEXTS texts."""
    folder = tmp_path_factory.mktemp("exact")
    rng = random.Random(0)
    for name, rows in (("train", 400), ("test", TEXTS)):
        with (folder / f"{name}.jsonl").open("w") as file:
            for number in range(rows):
                text = f"{number}: {review(rng, number % 2 == 0)}"
                file.write(json.dumps({"text": text, "label": "ab"[number % 2]}) + "\n")
    prepared = ["--task=csv", f"--source={folder / 'train.jsonl'}", f"--test_source={folder / 'test.jsonl'}"]
    python("scripts/prepare_data.py", *prepared, f"--encoder={tiny}", f"--output={folder / 'data'}", check=True)
    return folder


@pytest.mark.chaos
@pytest.mark.parametrize(("batch", "replicas"), [(32, 1), (48, 3), (100, 4), (333, 2)])
def test_every_text_counts_once_and_metrics_equal_scikit_learns(trained, tiny, batch, replicas, capsys):
    model_dir, predictions = trained / f"model-{batch}-{replicas}", trained / f"{batch}-{replicas}.jsonl"
    strategy = ["--strategy=cpu"] if replicas == 1 else ["--strategy=mirrored", f"--virtual_devices={replicas}"]
    keys = ("training.steps=20", "data.seq_length=48", "optimizer.learning_rate=1e-3", "logging.progress=off")
    flags = [f"--encoder={tiny}", f"--data_dir={trained / 'data'}", f"--model_dir={model_dir}", *strategy]
    sets = [f"--set={key}" for key in (*keys, f"data.batch_size={batch}")]
    python("-m", "trainer.task", *flags, *sets, check=True, timeout=900)
    evaluate = ["--mode=evaluate", f"--model_dir={model_dir}", f"--predictions={predictions}", *strategy]
    python("-m", "trainer.task", *evaluate, check=True, timeout=900)
    reported = json.loads((model_dir / "result.json").read_text())["test"]
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    labels, scores = [row["label"] for row in rows], [row["scores"] for row in rows]
    predicted = ["ab".index(row["predicted"]) for row in rows]  # Of equal scores, logits decide, which are more exact.
    assert all(score[label] == max(score) for score, label in zip(scores, predicted, strict=True))
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(labels, predicted),
        "f1": sklearn.metrics.f1_score(labels, predicted, pos_label=1),
        "roc_auc": sklearn.metrics.roc_auc_score(labels, [score[1] for score in scores]),
        "loss": sklearn.metrics.log_loss(labels, scores, labels=[0, 1]),
    }
    largest_difference = max(abs(reported[name] - value) for name, value in expected.items())
    with capsys.disabled():
        print(
            f"\nbatch {batch}, {replicas} replicas: {reported['examples']:,} texts, largest difference from "
            f"scikit-learn {largest_difference:.1e}"
        )
    assert reported["examples"] == TEXTS == len({row["id"] for row in rows})
    assert largest_difference <= 1e-6
