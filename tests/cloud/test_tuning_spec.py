"""A study's file, parsed into the service's own message, and its values that the service or a trial would refuse."""

import pytest
import yaml
from google.cloud import aiplatform_v1
from google.protobuf import json_format
from helpers import ROOT

from trainer.cloud import job_spec, tuning_spec
from trainer.config import loading
from trainer.errors import UsageError


@pytest.fixture
def study(tmp_path):
    """A function of parameters, and of other values of the file -> the study that is read from it."""

    def read(parameters: dict, **values) -> tuning_spec.Study:
        path = tmp_path / "study.yaml"
        written = {"metric": "validation/accuracy", "max_trials": 4, "parameters": parameters, **values}
        path.write_text(yaml.safe_dump(written, sort_keys=False))
        return tuning_spec.read_study(str(path))

    return read


RATE = {"optimizer.learning_rate": {"type": "double", "min": 1e-5, "max": 1e-3, "scale": "log"}}


def parsed(job: dict) -> aiplatform_v1.HyperparameterTuningJob:
    """As the service would read it: a field that it does not have fails."""
    message = aiplatform_v1.HyperparameterTuningJob()
    json_format.ParseDict(job, type(message).pb(message))
    return message


def test_every_kind_of_parameter_is_in_the_service_s_message(study, build_request):
    parameters = {
        **RATE,
        "training.steps": {"type": "integer", "min": 100, "max": 1000},
        "data.batch_size": {"type": "discrete", "values": [16, 32], "scale": "reverse_log"},
        "data.truncation": {"type": "categorical", "values": ["head", "tail"]},
    }
    values = {"parallel_trials": 2, "max_failed_trials": 1, "algorithm": "random", "measurement": "last"}
    request = build_request(name="tuned", set=["training.steps=none"], labels=["team=a"])
    job = parsed(tuning_spec.build_tuning_job(study(parameters, **values), request))
    spec = aiplatform_v1.StudySpec
    rate, steps, batch, truncation = job.study_spec.parameters
    assert (rate.parameter_id, rate.double_value_spec.min_value, rate.double_value_spec.max_value) == (
        "optimizer.learning_rate",
        1e-5,
        1e-3,
    )
    assert rate.scale_type == spec.ParameterSpec.ScaleType.UNIT_LOG_SCALE
    assert (steps.integer_value_spec.min_value, steps.integer_value_spec.max_value) == (100, 1000)
    assert list(batch.discrete_value_spec.values) == [16, 32]
    assert batch.scale_type == spec.ParameterSpec.ScaleType.UNIT_REVERSE_LOG_SCALE
    assert list(truncation.categorical_value_spec.values) == ["head", "tail"]
    assert truncation.scale_type == spec.ParameterSpec.ScaleType.SCALE_TYPE_UNSPECIFIED
    (metric,) = job.study_spec.metrics
    assert (metric.metric_id, metric.goal) == ("validation/accuracy", spec.MetricSpec.GoalType.MAXIMIZE)
    assert job.study_spec.algorithm == spec.Algorithm.RANDOM_SEARCH
    assert job.study_spec.measurement_selection_type == spec.MeasurementSelectionType.LAST_MEASUREMENT
    assert (job.max_trial_count, job.parallel_trial_count, job.max_failed_trial_count) == (4, 2, 1)
    assert (job.display_name, dict(job.labels)) == ("tuned", {"team": "a"})
    trial = aiplatform_v1.CustomJobSpec()
    json_format.ParseDict(job_spec.build_custom_job(request)["jobSpec"], type(trial).pb(trial))
    assert job.trial_job_spec == trial


def test_the_study_of_the_repository_suits_its_preset(build_request):
    study = tuning_spec.read_study(str(ROOT / "configs/tune_imdb.yaml"))
    job = parsed(tuning_spec.build_tuning_job(study, build_request(config="configs/imdb_minilm.yaml")))
    best = aiplatform_v1.StudySpec.MeasurementSelectionType.BEST_MEASUREMENT
    assert job.study_spec.measurement_selection_type == best
    assert job.max_trial_count == 20


def test_a_trial_s_values_load_as_the_service_writes_them(study, build_request):
    """A discrete value is a float."""
    job = tuning_spec.build_tuning_job(
        study({"data.batch_size": {"type": "discrete", "values": [16, 32]}}), build_request()
    )
    args = job["trialJobSpec"]["workerPoolSpecs"][0]["containerSpec"]["args"]
    changes = [flag.removeprefix("--set=") for flag in args if flag.startswith("--set=")]
    (batch,) = job["studySpec"]["parameters"]
    for value in batch["discreteValueSpec"]["values"]:
        loaded = loading.load_config(None, [*changes, f"{batch['parameterId']}={value}"])
        assert (loaded.data.batch_size, loaded.training.steps) == (value, 20)
        assert type(loaded.data.batch_size) is int


@pytest.mark.parametrize(
    ("key", "parameter", "received"),
    [
        ("optimizer.learning_rat", RATE["optimizer.learning_rate"], "optimizer.learning_rat."),
        ("optimizer.learning_rate", {"type": "double", "min": -1, "max": 1}, "-1.0"),
        ("model.dropout", {"type": "double", "min": 0, "max": 1}, "1.0"),
        ("data.batch_size", {"type": "double", "min": 8, "max": 64}, "25."),
        ("data.batch_size", {"type": "discrete", "values": [8, 12.5, 16]}, "12.5"),
        ("data.batch_size", {"type": "discrete", "values": [32, 16]}, "32.0, 16.0"),
        ("data.truncation", {"type": "categorical", "values": ["head", "middle"]}, "middle"),
        ("data.truncation", {"type": "categorical", "values": ["head", "head"]}, "head, head"),
        ("training.epochs", {"type": "integer", "min": 1, "max": 9}, "20"),  # The preset has training.steps.
        ("seed", {"type": "integer", "min": 3, "max": 3}, "min 3, max 3"),
        ("model.dropout", {"type": "double", "min": 0, "max": 0.5, "scale": "log"}, "0.0"),
    ],
)
def test_what_a_trial_would_refuse_is_refused_at_once(study, build_request, key, parameter, received):
    with pytest.raises(UsageError) as raised:
        tuning_spec.build_tuning_job(study({key: parameter}), build_request())
    message = str(raised.value)
    assert f"parameters.{key} in --tune must" in message
    assert received in message


def test_a_misspelled_key_has_the_nearest_one(study, build_request):
    parameters = {"optimizer.learning_rat": RATE["optimizer.learning_rate"]}
    with pytest.raises(UsageError, match=r"The nearest is optimizer\.learning_rate\."):
        tuning_spec.build_tuning_job(study(parameters), build_request())


@pytest.mark.parametrize(
    ("values", "setting", "received"),
    [
        ({"metric": "accuracy"}, "metric in --tune", "accuracy"),
        ({"algorithm": "grid"}, "algorithm in --tune", "grid"),
        ({"parallel_trials": 5}, "parallel_trials in --tune", "5"),
    ],
)
def test_what_the_service_would_refuse_is_refused_too(study, build_request, values, setting, received):
    with pytest.raises(UsageError) as raised:
        tuning_spec.build_tuning_job(study(RATE, **values), build_request())
    (problem,) = raised.value.problems
    assert (problem.setting, problem.received) == (setting, received)


def test_a_batch_that_leaves_a_device_without_an_example_is_refused(study, build_request):
    parameters = {"data.batch_size": {"type": "discrete", "values": [4, 8]}}
    with pytest.raises(UsageError, match=r"parameters\.data\.batch_size.*8.*Received: .*4"):
        tuning_spec.build_tuning_job(study(parameters), build_request(machine="tpu_v3"))


def test_the_metric_is_the_one_of_the_data_set_s_kind(study):
    tuning_spec.check_metric(study(RATE), "classification")
    with pytest.raises(UsageError, match="validation/pearson for numbers"):
        tuning_spec.check_metric(study(RATE), "regression")


def test_the_metric_is_the_one_that_selects_the_best_step(study):
    by_loss = study(RATE, metric="validation/loss", goal="minimize")
    tuning_spec.check_metric(by_loss, "regression", "loss")
    with pytest.raises(UsageError, match="metric in --tune must be validation/f1 for classes"):
        tuning_spec.check_metric(study(RATE), "classification", "f1")


@pytest.mark.parametrize(
    ("best_metric", "metric", "goal", "setting"),
    [
        ("loss", "validation/loss", "minimize", None),
        ("macro_f1", "validation/macro_f1", "maximize", None),
        ("loss", "validation/loss", "maximize", "goal in --tune"),
        ("macro_f1", "validation/accuracy", "maximize", "metric in --tune"),
        ("none", "validation/pearson", "minimize", "goal in --tune"),
    ],
)
def test_metric_and_goal_are_those_of_the_configuration(study, build_request, best_metric, metric, goal, setting):
    request = build_request(set=[f"training.best_metric={best_metric}"])
    trials = study(RATE, metric=metric, goal=goal)
    if setting is None:
        job = tuning_spec.build_tuning_job(trials, request)
        assert job["studySpec"]["metrics"] == [{"metricId": metric, "goal": goal.upper()}]
        return
    with pytest.raises(UsageError) as raised:
        tuning_spec.build_tuning_job(trials, request)
    assert [problem.setting for problem in raised.value.problems] == [setting]


def test_trials_are_not_compared_by_different_metrics(study, build_request):
    parameters = {"training.best_metric": {"type": "categorical", "values": ["accuracy", "f1"]}}
    with pytest.raises(UsageError, match=r"training\.best_metric in --tune must be no parameter"):
        tuning_spec.build_tuning_job(study(parameters), build_request())


def test_every_error_of_a_study_is_reported_at_once(study):
    parameters = {
        "optimizer.learning_rate": {"type": "double", "min": "low", "max": 1, "scale": "cubic"},
        "seed": {"type": "number", "min": 1},
        "data.batch_size": {"type": "discrete", "values": []},
        "data.truncation": {"type": "categorical", "values": ["head", False], "scale": "log"},
    }
    with pytest.raises(UsageError) as raised:
        study(parameters, goal="least", max_trials=0, trials=3)
    received = {problem.setting.partition(" in --tune=")[0]: problem.received for problem in raised.value.problems}
    assert received.keys() == {
        "parameters.optimizer.learning_rate.min",
        "parameters.optimizer.learning_rate.scale",
        "parameters.seed",
        "parameters.data.batch_size.values",
        "parameters.data.truncation.values.1",
        "parameters.data.truncation.scale",
        "goal",
        "max_trials",
        "trials",
    }
    assert received["parameters.optimizer.learning_rate.min"] == "'low'"
    assert "be valid" not in {
        problem.required for problem in raised.value.problems
    }  # Every type of error is described.


def test_every_error_of_a_tuning_job_is_reported_at_once(study, build_request):
    parameters = {
        **RATE,
        "data.batch_size": {"type": "discrete", "values": [2.5, -3]},
        "data.size": {"type": "integer", "min": 1, "max": 2},
    }
    with pytest.raises(UsageError) as raised:
        tuning_spec.build_tuning_job(study(parameters, metric="loss", parallel_trials=9), build_request())
    message = str(raised.value)
    for words in ("metric in", "parallel_trials in", "increasing order", "2.5", "-3.0", "parameters.data.size in"):
        assert words in message


def test_a_file_without_a_study_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"--tune.*no\.yaml"):
        tuning_spec.read_study(str(tmp_path / "no.yaml"))
    (tmp_path / "code.yaml").write_text("metric: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UsageError, match=r"--tune.*code\.yaml"):
        tuning_spec.read_study(str(tmp_path / "code.yaml"))
