import pytest

from trainer.config import loading
from trainer.distributed import strategies
from trainer.train import modes
from trainer.train.run_files import resolve_run_files


@pytest.fixture
def config(finished_run):
    return loading.load_config(str(finished_run / "config.yaml"), ["logging.progress=off", "logging.tensorboard=off"])


@pytest.fixture
def session(config):
    """A function model_dir -> a session on the CPU."""
    devices = strategies.DeviceRequest()
    return lambda model_dir: modes.Session(config, resolve_run_files(str(model_dir)), "cpu", devices, 0.0)


def test_batches_are_inspected_from_the_newest_checkpoint_on(config, finished_run):
    lines = list(modes.inspect_batches(config, None, 3))
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(len(line["ids"]) == 16 for line in lines)
    assert list(modes.inspect_batches(config, str(finished_run / "checkpoints"), 3)) == []  # It has trained to its end.


def test_a_run_without_a_best_checkpoint_cannot_be_evaluated(session, tmp_path):
    with pytest.raises(ValueError, match="--model_dir must hold a run that has evaluated"):
        modes.evaluate(session(tmp_path), "test")


def test_an_evaluation_gives_the_run_s_and_the_baseline_s_metrics(session, finished_run, model_dir, evaluated):
    evaluation = modes.evaluate(session(model_dir), "test", with_baseline=True)
    (name, metrics), (baseline, _) = evaluation.rows
    printed, predictions = evaluated
    assert name in printed
    assert baseline in printed
    right = sum(row["label"] == row["scores"].index(max(row["scores"])) for row in predictions)
    assert metrics["accuracy"] == pytest.approx(right / len(predictions))
    assert [row["predicted"] == row["label_name"] for row in predictions].count(True) == right
    supports = {name: scores["support"] for name, scores in evaluation.classes["by_class"].items()}
    names = [row["label_name"] for row in predictions]
    assert supports == {name: names.count(name) for name in ("negative", "positive")}
