"""A study's file to the service's own message, and every value in it that the service or a trial would refuse."""

import pytest
import yaml
from google.cloud import aiplatform_v1
from google.protobuf import json_format
from helpers import ROOT

from trainer.cloud import job_spec, tuning_spec
from trainer.cloud.machine_types import Host
from trainer.config import loading
from trainer.errors import UsageError
from trainer.runtime import vertex_env


def custom_job(*flags: str, **changes) -> dict:
    values = {"name": "tuned", "host": Host("n1-standard-8", "NVIDIA_TESLA_T4", 1), "replicas": 1, "image": "image"}
    return job_spec.custom_job(**{**values, "base_output_directory": "gs://bucket/tuned", "flags": flags, **changes})


@pytest.fixture
def study(tmp_path):
    """A function of parameters, and of other values of the file -> the study that is read from it."""

    def read(parameters: dict, **values) -> tuning_spec.Study:
        path = tmp_path / "study.yaml"
        written = {"metric": "validation/accuracy", "max_trials": 4, "parameters": parameters, **values}
        path.write_text(yaml.safe_dump(written, sort_keys=False))
        return tuning_spec.read(str(path))

    return read


RATE = {"optimizer.learning_rate": {"type": "double", "min": 1e-5, "max": 1e-3, "scale": "log"}}


def parsed(job: dict) -> aiplatform_v1.HyperparameterTuningJob:
    """As the service would read it: a field that it does not have fails."""
    message = aiplatform_v1.HyperparameterTuningJob()
    json_format.ParseDict(job, type(message).pb(message))
    return message


def test_every_kind_of_parameter_arrives_in_the_service_s_message(study):
    parameters = {
        **RATE,
        "training.steps": {"type": "integer", "min": 100, "max": 1000},
        "data.batch_size": {"type": "discrete", "values": [16, 32], "scale": "reverse_log"},
        "data.truncation": {"type": "categorical", "values": ["head", "tail"]},
    }
    values = {"parallel_trials": 2, "max_failed_trials": 1, "algorithm": "random", "measurement": "last"}
    base = custom_job("--strategy=auto", labels={"team": "a"})
    job = parsed(tuning_spec.job(study(parameters, **values), base))
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
    json_format.ParseDict(base["jobSpec"], type(trial).pb(trial))
    assert job.trial_job_spec == trial


def test_the_study_of_the_repository_is_valid_for_the_preset_that_it_names():
    flags = job_spec.task_flags(loading.load_config(str(ROOT / "configs/imdb_minilm.yaml")), "auto")
    job = parsed(tuning_spec.job(tuning_spec.read(str(ROOT / "configs/tune_imdb.yaml")), custom_job(*flags)))
    assert (
        job.study_spec.measurement_selection_type == aiplatform_v1.StudySpec.MeasurementSelectionType.BEST_MEASUREMENT
    )
    assert job.max_trial_count == 20


def test_a_trial_s_flags_load_at_every_end(study):
    """As the service writes them: a flag of the parameter's name, a discrete value as the float that it is."""
    parameters = {
        "data.batch_size": {"type": "discrete", "values": [16, 32]},
        "seed": {"type": "integer", "min": 0, "max": 2},
    }
    job = tuning_spec.job(study(parameters), custom_job("--set=training.epochs=2"))
    args = job["trialJobSpec"]["workerPoolSpecs"][0]["containerSpec"]["args"]
    batch, seed = job["studySpec"]["parameters"]
    for value in batch["discreteValueSpec"]["values"]:
        flags = vertex_env.settings([*args, f"--{batch['parameterId']}={value}", f"--{seed['parameterId']}", "2"])
        loaded = loading.load_config(None, [flag.removeprefix("--set=") for flag in flags])
        assert (loaded.data.batch_size, loaded.seed, loaded.training.epochs) == (value, 2, 2)
        assert type(loaded.data.batch_size) is int


@pytest.mark.parametrize(
    ("parameters", "flags", "message"),
    [
        (
            {"optimizer.learning_rat": RATE["optimizer.learning_rate"]},
            [],
            "parameters.optimizer.learning_rat: a known key was required; the nearest is optimizer.learning_rate.",
        ),
        (
            {"optimizer.learning_rate": {"type": "double", "min": -1, "max": 1}},
            [],
            "parameters.optimizer.learning_rate: greater than 0 was required. Received: '-1.0'.",
        ),
        (
            {"model.dropout": {"type": "double", "min": 0, "max": 1}},
            [],
            "parameters.model.dropout: less than 1 was required. Received: '1.0'.",
        ),
        (
            {"data.batch_size": {"type": "double", "min": 8, "max": 64}},
            [],
            "parameters.data.batch_size: a valid integer was required. Received: '25.",
        ),
        (
            {"data.batch_size": {"type": "discrete", "values": [8, 12.5, 16]}},
            [],
            "parameters.data.batch_size: a valid integer was required. Received: '12.5'.",
        ),
        (
            {"data.truncation": {"type": "categorical", "values": ["head", "middle"]}},
            [],
            "parameters.data.truncation: 'head', 'tail' or 'head_tail' was required. Received: 'middle'.",
        ),
        (
            {"training.steps": {"type": "integer", "min": 1, "max": 9}},
            ["--set=training.epochs=2"],
            "training.epochs or training.steps was required, not both.",
        ),
        (
            {"seed": {"type": "integer", "min": 3, "max": 3}},
            [],
            "parameters.seed: a max above min was required. Received: min 3, max 3.",
        ),
        (
            {"data.batch_size": {"type": "discrete", "values": [32, 16]}},
            [],
            "parameters.data.batch_size: values in increasing order were required. Received: 32.0, 16.0.",
        ),
        (
            {"model.dropout": {"type": "double", "min": 0, "max": 0.5, "scale": "log"}},
            [],
            "parameters.model.dropout: values above 0 were required for the scale log. Received: 0.0.",
        ),
        (
            {"data.truncation": {"type": "categorical", "values": ["head", "head"]}},
            [],
            "parameters.data.truncation: values that differ were required. Received: head, head.",
        ),
        (RATE, ["--model_dir=gs://b/x"], "leave the flag out. Received: --model_dir=gs://b/x."),
        (RATE, ["--job-dir", "gs://b/x"], "leave the flag out. Received: --job-dir."),
    ],
)
def test_what_a_trial_would_refuse_is_refused_before_it_is_submitted(study, parameters, flags, message):
    with pytest.raises(UsageError) as raised:
        tuning_spec.job(study(parameters), custom_job(*flags))
    assert message in str(raised.value)
    assert "--set" not in str(raised.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metric": "accuracy"}, "metric: validation/accuracy or validation/pearson was required, as the data set's"),
        ({"algorithm": "grid"}, "algorithm: another than grid was required, which takes no double."),
        ({"parallel_trials": 5}, "parallel_trials: at most max_trials, 4, was required. Received: 5."),
    ],
)
def test_what_the_service_would_refuse_is_refused_too(study, values, message):
    with pytest.raises(UsageError) as raised:
        tuning_spec.job(study(RATE, **values), custom_job())
    assert message in str(raised.value)


def test_a_batch_that_leaves_a_device_without_an_example_is_refused(study):
    parameters = {"data.batch_size": {"type": "discrete", "values": [4, 8]}}
    message = (
        r"^the tuning job has errors:\nparameters\.data\.batch_size must be at least as many as the replicas, 8\. "
    )
    with pytest.raises(UsageError, match=message + r"Received: 4\.$"):
        tuning_spec.job(study(parameters), custom_job(), replicas=8)


def test_the_metric_is_the_one_of_the_data_set_s_kind(study):
    tuning_spec.check_metric(study(RATE), "classification")
    with pytest.raises(UsageError, match="validation/pearson was required for a regression"):
        tuning_spec.check_metric(study(RATE), "regression")


def test_a_job_without_a_base_output_directory_has_no_folders_for_its_trials(study):
    with pytest.raises(UsageError, match="Received: a job without one"):
        tuning_spec.job(study(RATE), {"displayName": "x", "jobSpec": {"workerPoolSpecs": [{"containerSpec": {}}]}})


def test_every_error_of_a_study_is_told_at_once(study):
    parameters = {
        "optimizer.learning_rate": {"type": "double", "min": "low", "max": 1, "scale": "cubic"},
        "seed": {"type": "number", "min": 1},
        "data.batch_size": {"type": "discrete", "values": []},
        "data.truncation": {"type": "categorical", "values": ["head", False], "scale": "log"},
    }
    with pytest.raises(UsageError) as raised:
        study(parameters, goal="minimize", max_trials=0, trials=3)
    message = str(raised.value)
    for words in (
        "--tune=",
        "parameters.optimizer.learning_rate.min: a valid number. Received: 'low'.",
        "parameters.optimizer.learning_rate.scale: 'linear', 'log' or 'reverse_log'. Received: 'cubic'.",
        "parameters.seed: ",
        "parameters.data.batch_size.values: ",
        "parameters.data.truncation.values.1: a valid string. Received: False.",
        "parameters.data.truncation.scale: ",
        "goal: 'maximize'. Received: 'minimize'.",
        "max_trials: greater than 0. Received: 0.",
        "trials: ",
    ):
        assert words in message


def test_a_job_has_every_error_at_once(study):
    parameters = {
        **RATE,
        "data.batch_size": {"type": "discrete", "values": [2.5, -3]},
        "data.size": {"type": "integer", "min": 1, "max": 2},
    }
    with pytest.raises(UsageError) as raised:
        tuning_spec.job(study(parameters, metric="loss", parallel_trials=9), custom_job("--job-dir=x"))
    message = str(raised.value)
    for words in (
        "metric: ",
        "parallel_trials: ",
        "--job-dir=x",
        "increasing order",
        "'2.5'",
        "'-3.0'",
        "data.size: a known",
    ):
        assert words in message


def test_a_file_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"--tune must name a YAML file\. Received: .*no\.yaml"):
        tuning_spec.read(str(tmp_path / "no.yaml"))
    (tmp_path / "code.yaml").write_text("metric: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UsageError, match="which does not parse"):
        tuning_spec.read(str(tmp_path / "code.yaml"))
