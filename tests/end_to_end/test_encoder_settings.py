"""More positions than the encoder has, the mean of all tokens, frozen embeddings: trained, exported, predicted."""

import json
import random

import numpy as np
import pytest
import tensorflow as tf
from conftest import prepare
from helpers import BAD, GOOD, PLAIN, python, score_texts

from trainer.data import manifests, records
from trainer.encoders import native, saved_models
from trainer.export import predict

pytestmark = pytest.mark.long

OWN_POSITIONS, POSITIONS = 512, 640


@pytest.fixture(scope="module")
def long_data(tiny, tmp_path_factory):
    """60 texts whose label is told by a word behind the encoder's own positions."""
    rng, folder = random.Random(0), tmp_path_factory.mktemp("long")
    rows = [
        {"text": " ".join([*rng.choices(PLAIN, k=rng.randint(530, 620)), rng.choice(words)]), "label": label}
        for number in range(60)
        for label, words in [("positive", GOOD) if number % 2 else ("negative", BAD)]
    ]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    prepare(folder / "texts.jsonl", tiny, folder / "data")
    return folder / "data"


@pytest.fixture(scope="module")
def run(tiny, long_data, tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("settings") / "run"
    keys = (
        *("training.steps=8", "data.batch_size=6", "optimizer.learning_rate=1e-3", "logging.report=off"),
        *(f"data.seq_length={POSITIONS}", f"model.max_positions={POSITIONS}"),
        *("model.pooling=mean", "model.freeze=embeddings"),
    )
    arguments = [f"--encoder={tiny}", f"--data_dir={long_data}", *(f"--set={key}" for key in keys)]
    python("-m", "trainer.task", *arguments, f"--model_dir={model_dir}", check=True)
    return model_dir


def test_evaluation_and_export_agree_beyond_the_encoders_positions(run, long_data, tmp_path):
    manifest = manifests.read_manifest(str(long_data))
    rows = records.read_split(str(long_data), manifest, "test", with_text=True)
    assert min(rows.lengths()) > OWN_POSITIONS
    path = tmp_path / "predictions.jsonl"
    python("-m", "trainer.task", "--mode=evaluate", f"--model_dir={run}", f"--predictions={path}", check=True)
    expected = [json.loads(line)["scores"] for line in path.read_text().splitlines()]
    _, signature = predict.load_export(str(run / "export"))
    scores = score_texts(signature, rows.texts)
    assert scores == pytest.approx(np.array(expected), abs=1e-4)
    # What is behind the encoder's own positions counts.
    changed = [text.rsplit(" ", 1)[0] + " the" for text in rows.texts]
    assert (
        signature(text=tf.constant(changed))["logits"].numpy()
        != signature(text=tf.constant(rows.texts))["logits"].numpy()
    ).any()
    done = python("scripts/predict.py", f"--model={run / 'export'}", "--format=jsonl", *rows.texts, check=True)
    predicted = [list(json.loads(line)["scores"].values()) for line in done.stdout.splitlines()]
    assert np.array(predicted) == pytest.approx(scores, abs=1e-4)


def test_frozen_embeddings_and_the_pooler_have_the_encoders_values(run, tiny):
    saved = native.variables_by_name(saved_models.load_saved_model(str(tiny / "encoder")).trainable_variables)
    trained = native.variables_by_name(predict.load_export(str(run / "export"))[0].model_variables)
    unchanged = {
        name for name, value in saved.items() if (trained[name].numpy()[: value.shape[0]] == value.numpy()).all()
    }
    assert {name.split("/")[0] for name in unchanged} == {
        *("word_embeddings", "position_embedding", "type_embeddings", "embeddings", "pooler_transform")
    }
    table = trained["position_embedding/embeddings"].numpy()
    assert len(table) == POSITIONS
    assert (table[OWN_POSITIONS:] == table[: POSITIONS - OWN_POSITIONS]).all()


def test_a_run_does_not_resume_with_another_setting(run):
    for setting in ("model.pooling=first", "model.freeze=none", "model.max_positions=700"):
        arguments = [f"--config={run / 'config.yaml'}", f"--set={setting}", f"--model_dir={run}"]
        done = python("-m", "trainer.task", *arguments)
        assert done.returncode in (1, 2)
        assert setting.partition("=")[0] in done.stderr
