"""Texts that are longer than a sequence, in windows: trained, killed, resumed, evaluated, exported, predicted."""

import json

import numpy as np
import pytest
import tensorflow as tf
from helpers import python, score_texts
from interruptions import JobCommand, assert_equal_runs

from trainer.data import manifests, records
from trainer.export import predict

pytestmark = pytest.mark.long

SEQ_LENGTH, WINDOWS = 14, 3  # The reviews have 9 to 45 tokens: one window, several, or more than are allowed.


@pytest.fixture(scope="module")
def job(tiny, prepared) -> JobCommand:
    keys = (
        *("training.steps=60", "training.log_every=7", "training.save_every=20", "training.eval_every=30"),
        *("data.batch_size=16", f"data.seq_length={SEQ_LENGTH}", "data.truncation=windows", "data.window_stride=8"),
        *(f"data.max_windows={WINDOWS}", "model.window_pooling=max", "optimizer.learning_rate=2e-3"),
        "training.accumulation_steps=2",
    )
    return JobCommand([f"--encoder={tiny}", f"--data_dir={prepared}", *(f"--set={key}" for key in keys)], 1)


@pytest.fixture(scope="module")
def windows_run(job, tmp_path_factory):
    return job.run_to_end(tmp_path_factory.mktemp("windows") / "run")


@pytest.fixture(scope="module")
def test_split(prepared):
    manifest = manifests.read_manifest(str(prepared))
    return records.read_split(str(prepared), manifest, "test", with_text=True)


def test_a_killed_run_with_windows_ends_like_one_that_was_not(job, windows_run, tmp_path):
    assert_equal_runs(job.run_interrupted(tmp_path / "run", "training"), windows_run)


def test_evaluation_and_export_agree_and_count_each_text_once(windows_run, test_split, tmp_path):
    content = SEQ_LENGTH - 2
    assert min(test_split.lengths()) <= content < content + 2 * 8 < max(test_split.lengths())
    path = tmp_path / "predictions.jsonl"
    python("-m", "trainer.task", "--mode=evaluate", f"--model_dir={windows_run}", f"--predictions={path}", check=True)
    predictions = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["id"] for row in predictions] == test_split.ids
    result = json.loads((windows_run / "result.json").read_text())
    assert result["test"]["examples"] == len(predictions)
    assert result["test"]["loss"] == pytest.approx(np.mean([row["loss"] for row in predictions]), abs=1e-5)
    _, signature = predict.load_export(str(windows_run / "export"))
    scores = score_texts(signature, test_split.texts)
    assert scores == pytest.approx(np.array([row["scores"] for row in predictions]), abs=1e-4)


def test_an_export_takes_texts_of_any_length_in_any_batch(windows_run, test_split):
    _, signature = predict.load_export(str(windows_run / "export"))
    texts = ["", "superb", " ".join(test_split.texts), test_split.texts[0]]
    together = signature(text=tf.constant(texts))
    assert together["labels"].shape == (4,)
    alone = [signature(text=tf.constant([text]))["logits"].numpy()[0] for text in texts]
    assert together["logits"].numpy() == pytest.approx(np.array(alone), abs=1e-5)
    assert tuple(signature(text=tf.constant([], tf.string))["scores"].shape) == (0, 2)
    done = python("scripts/predict.py", f"--model={windows_run / 'export'}", "--format=jsonl", *texts[1:], check=True)
    scored = [list(json.loads(line)["scores"].values()) for line in done.stdout.splitlines()]
    assert np.array(scored) == pytest.approx(together["scores"].numpy()[1:], abs=1e-4)


def test_a_classifier_of_token_ids_pools_windows_as_the_run_does(windows_run, tmp_path):
    arguments = [f"--model_dir={windows_run}", f"--output={tmp_path / 'out'}", "--format=litert"]
    python("scripts/export_classifier.py", *arguments, check=True)
    described = json.loads((tmp_path / "out/classifier.json").read_text())
    assert described["inputs"]["input_mask"]["shape"] == ["batch", "windows", "tokens"]
    assert described["windows"] == {"content": SEQ_LENGTH - 2, "stride": 8, "most": WINDOWS}
    test, result = described["metrics"]["test"], json.loads((windows_run / "result.json").read_text())
    assert test["export"] == test["run"] == pytest.approx(result["test"]["accuracy"])
    assert described["check"]["same_labels"] == described["check"]["texts"] == 30


def test_a_run_without_windows_starts_from_one_with_windows(job, windows_run, tmp_path):
    changes = ["--set=data.truncation=head", "--set=training.steps=1", f"--init_from={windows_run}"]
    done = python("-m", "trainer.task", *job.flags, *changes, f"--model_dir={tmp_path / 'run'}", check=True)
    assert "The classification head was loaded as well." in done.stderr
