"""The command itself, each time in a process of its own."""

import concurrent.futures
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import sklearn.metrics
from helpers import ROOT, free_addresses, python

from trainer.config import schema
from trainer.evals import baseline
from trainer.storage import fs


def task(*arguments, **options):
    return python("-m", "trainer.task", *arguments, **options)


def test_help_answers_at_once_without_tensorflow():
    began = time.monotonic()
    done = python("-X", "importtime", "-m", "trainer.task", "--help")
    assert time.monotonic() - began < 2
    assert "--model_dir" in done.stdout
    assert "--virtual_devices" in done.stdout
    assert "python -m trainer.task --mode=evaluate" in done.stdout
    assert not [line for line in done.stderr.splitlines() if line.endswith(("tensorflow", "numpy"))]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--no_such_flag"], "--no_such_flag must be a flag"),
        (["--mode=tune"], "--mode=tune: value should be one of <train|evaluate|report|export|inspect_batches>"),
        (["--split=dev"], "--split=dev: value should be one of <train|validation|test>"),
        (["--virtual_devices=two"], "--virtual_devices=two"),
        (["--model_dir=m", "runs/mine"], "Every argument must be a flag, --name=value. Received: runs/mine."),
        ([], "--model_dir must name the run's folder. Received: none."),
    ],
)
def test_a_bad_flag_ends_with_2(arguments, words):
    done = task(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_every_configuration_error_is_reported_and_nothing_is_written(tmp_path):
    bad = ("optimizer.learning_rat=1", "data.seq_length=many", "training.epochs")
    done = task(f"--model_dir={tmp_path / 'run'}", *(f"--set={key}" for key in bad))
    assert done.returncode == 2
    for words in (
        "optimizer.learning_rate",
        "data.seq_length",
        "'many'",
        "--set must",
        "'training.epochs'",
    ):
        assert words in done.stderr
    assert not (tmp_path / "run").exists()


def test_every_wrong_value_of_a_key_s_flag_is_reported(tmp_path):
    done = task("--data.seq_length", "7.5", "--seed=x", f"--model_dir={tmp_path / 'run'}")
    assert done.returncode == 2
    for words in ("data.seq_length", "'7.5'", "seed", "'x'"):
        assert words in done.stderr
    assert not (tmp_path / "run").exists()


def test_every_unknown_flag_is_reported_with_the_nearest_one(tmp_path):
    done = task("--optimizer.learning_rat=1", "--data.batch=2", "--seed=1", f"--model_dir={tmp_path / 'run'}")
    assert done.returncode == 2
    for words in ("--optimizer.learning_rat ", "--optimizer.learning_rate", "--data.batch ", "--data.batch_size"):
        assert words in done.stderr
    assert "--seed" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_help_documents_every_key_with_its_default():
    text = " ".join(task("--help").stdout.split())
    for key, default in schema.DEFAULTS.items():
        shown = "none" if default in ("", None) else default
        assert f"--{key}: {schema.DESCRIPTIONS[key]} Default: {shown}." in text


# --- What a cloud service sets ----------------------------------------------------------------------


def of_vertex(folder, **more: str) -> dict[str, str]:
    """The environment of a job on one machine whose base output directory is the folder."""
    spec = {"cluster": {"workerpool0": ["training-workerpool0-ab-0:2222"]}, "task": {"type": "workerpool0", "index": 0}}
    folders = {"AIP_MODEL_DIR": "model/", "AIP_CHECKPOINT_DIR": "checkpoints/", "AIP_TENSORBOARD_LOG_DIR": "logs/"}
    named = {variable: f"{folder}/{name}" for variable, name in folders.items()}
    return {**os.environ, "CLUSTER_SPEC": json.dumps(spec), **named, **more}


def test_the_trials_of_a_tuning_job_do_not_share_a_model_dir(tmp_path):
    done = task(f"--model_dir={tmp_path}", env=of_vertex(tmp_path / "7", CLOUD_ML_TRIAL_ID="7"))
    assert done.returncode == 2
    assert f"--model_dir must be the trial's own, {tmp_path / '7'}, " in done.stderr


def test_a_bucket_that_the_service_names_is_looked_at_too(simulator, tmp_path):
    environment = {name: value for name, value in of_vertex("gs://gone").items() if name.startswith("AIP_")}
    done = task(f"--model_dir={tmp_path / 'run'}", env=simulator.environment(**environment))
    assert done.returncode == 2
    for variable in environment:
        assert f"{variable} must " in done.stderr
    assert "gs://gone" in done.stderr
    done = task("--model_dir=/gcs/gone/run", env=simulator.environment())
    assert "--model_dir must be in a bucket that exists. Received: gs://gone/run " in done.stderr
    done = task(env=simulator.environment(**environment))
    assert done.stderr.count("--model_dir must be in a bucket that exists. Received: gs://gone ") == 1


def test_a_finished_trial_reports_its_metric_again(flags, finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "7")
    settings = [flag.removeprefix("--set=") for flag in flags]
    done = task(
        *(f"--{setting}" for setting in settings if "." in setting.partition("=")[0]),
        *(flag for flag in flags if not flag.startswith("--set=")),
        env=of_vertex(folder, CLOUD_ML_TRIAL_ID="7", CLOUD_ML_HP_METRIC_FILE=str(tmp_path / "metrics/file")),
    )
    assert done.returncode == 0, done.stderr
    assert f"{folder} holds this run, finished: nothing to do." in done.stderr
    assert f"there is no export in {folder}/model: --mode=export writes one." in done.stderr
    measured = json.loads((tmp_path / "metrics/file").read_text())
    result = json.loads((folder / "result.json").read_text())
    assert (measured["trial"], measured["global_step"]) == ("7", "100")
    assert float(measured["validation/accuracy"]) == result["validation"]["accuracy"]


def test_a_trial_without_a_writable_metric_file_writes_nothing(flags, tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "7"
    done = task(
        *flags, env=of_vertex(folder, CLOUD_ML_TRIAL_ID="7", CLOUD_ML_HP_METRIC_FILE=str(tmp_path / "file/metrics"))
    )
    assert done.returncode == 2
    assert "CLOUD_ML_HP_METRIC_FILE must " in done.stderr
    assert not folder.exists()


def test_a_lost_metric_fails_the_trial_after_its_result_is_written(flags, tmp_path):
    folder, metrics = tmp_path / "7", tmp_path / "metrics"
    metrics.mkdir()
    environment = of_vertex(folder, CLOUD_ML_TRIAL_ID="7", CLOUD_ML_HP_METRIC_FILE=str(metrics / "file"))
    short = [*flags, "--set=training.steps=10"]
    command = [sys.executable, "-m", "trainer.task", *short]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True) as child:
        while child.poll() is None and not (folder / "config.yaml").exists():
            time.sleep(0.01)
        metrics.rename(tmp_path / "gone")
        metrics.touch()  # Before the first step: from here on the folder is a file.
        out, error = child.communicate(timeout=300)
    assert child.returncode == 1
    assert (folder / "result.json").exists()
    assert "finished: 10 steps" in out
    assert "CLOUD_ML_HP_METRIC_FILE must " in error.splitlines()[-1]
    # Where the file can be written again, the same command reports the metric.
    metrics.unlink()
    done = task(*short, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "result.json").read_text())
    (measured,) = map(json.loads, (metrics / "file").read_text().splitlines())
    assert float(measured["validation/accuracy"]) == result["validation"]["accuracy"]


def test_the_flags_and_tf_config_of_ai_platform_are_accepted(flags, finished_run, tmp_path):
    """Its flags go first, the job's directory last, name and value apart; `job` is what was submitted."""
    folder = shutil.copytree(finished_run, tmp_path / "run")
    described = {
        "cluster": {"chief": ["127.0.0.1:2222"]},
        "environment": "cloud",
        "job": {"scale_tier": "BASIC", "python_module": "trainer.task", "job_dir": str(folder)},
        "task": {"cloud": "w93a1503672d4dd09-ml", "type": "chief", "index": 0},
    }
    apart = [word for flag in flags for word in flag.split("=", 1)]
    done = task(*apart, "--job-dir", folder, env={**os.environ, "TF_CONFIG": json.dumps(described)})
    assert done.returncode == 0, done.stderr
    assert f"{folder} holds this run, finished: nothing to do." in done.stderr


def test_evaluate_takes_no_other_configuration(finished_run):
    done = task("--mode=evaluate", f"--model_dir={finished_run}", "--set=seed=1", "--config=configs/smoke.yaml")
    assert done.returncode == 2
    for flag in ("--seed", "--config"):
        assert f"{flag} must be left out where the configuration is that of the run" in done.stderr


def test_an_unknown_strategy_is_told_the_valid_ones(flags, tmp_path):
    done = task(*flags, f"--model_dir={tmp_path / 'run'}", "--strategy=horovod")
    assert done.returncode == 2
    assert "--strategy must be one of auto, cpu, one_device, mirrored" in done.stderr
    assert "Received: horovod." in done.stderr
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_finished_run_is_not_run_again(flags, finished_run):
    before = {
        path: path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.is_file() and path.name != ".lock"
    }
    done = task(*flags, f"--model_dir={finished_run}")
    assert done.returncode == 0
    assert f"{finished_run} holds this run, finished: nothing to do." in done.stderr
    assert "finished: 100 steps in" in done.stdout
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


def test_what_is_no_encoder_ends_with_1(flags, finished_run, tmp_path):
    done = task(*flags, f"--encoder={finished_run}/export", f"--model_dir={tmp_path}/run")
    assert done.returncode == 1
    assert "--encoder must be a text encoder" in done.stderr
    assert f"{finished_run}/export" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_run_on_the_same_model_dir_is_refused(flags, tmp_path):
    folder = str(tmp_path / "run")
    with fs.exclusive_lock(folder):
        done = task(*flags, f"--model_dir={folder}")
    assert done.returncode == 1
    assert f"--model_dir must be used by one run at a time. Received: {folder}, held by" in done.stderr


def test_evaluate_prints_the_encoder_and_the_baseline_beside_each_other(evaluated, prepared, tiny, finished_run):
    printed, _ = evaluated
    where, header, encoder, bag, *by_class = printed.splitlines()
    assert where == f"test of {prepared}"
    shown = ("loss", "accuracy", "precision", "recall", "f1", "macro_f1", "matthews", "roc_auc", "average_precision")
    assert header.split() == ["examples", *" ".join(shown).replace("_", " ").split()]
    assert encoder.startswith(str(tiny))
    assert bag.startswith(baseline.BASELINE_NAME)
    result = json.loads((finished_run / "result.json").read_text())["test"]
    assert encoder.split()[-10:] == ["30", *(f"{result[name]:.4f}" for name in shown)]
    assert bag.split()[-10] == "30"
    assert float(bag.split()[-8]) >= 0.8
    assert [line.split(" ")[0] for line in by_class].count("negative") == 2  # Its scores and its confusion.


def test_the_report_of_a_finished_run_is_written_by_its_own_mode(finished_run, tmp_path):
    folder = shutil.copytree(
        finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("report.html", "tensorboard")
    )
    done = task("--mode=report", f"--model_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert f"{folder}/report.html written" in done.stdout.splitlines()
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_predictions_give_the_results_metrics(evaluated, finished_run):
    _, rows = evaluated
    result = json.loads((finished_run / "result.json").read_text())["test"]
    labels, scores = np.array([row["label"] for row in rows]), np.array([row["scores"] for row in rows])
    guesses = scores.argmax(axis=1)
    positive = json.loads((finished_run / "identity.json").read_text())["positive_class"]
    index = ["negative", "positive"].index(positive)
    assert len({row["id"] for row in rows}) == result["examples"] == 30
    assert result == pytest.approx(
        {
            "examples": 30,
            "loss": np.mean([row["loss"] for row in rows]),
            "accuracy": sklearn.metrics.accuracy_score(labels, guesses),
            "precision": sklearn.metrics.precision_score(labels, guesses, pos_label=index),
            "recall": sklearn.metrics.recall_score(labels, guesses, pos_label=index),
            "f1": sklearn.metrics.f1_score(labels, guesses, pos_label=index),
            "macro_f1": sklearn.metrics.f1_score(labels, guesses, average="macro"),
            "matthews": sklearn.metrics.matthews_corrcoef(labels, guesses),
            "roc_auc": sklearn.metrics.roc_auc_score(labels, scores[:, 1]),
            "average_precision": sklearn.metrics.average_precision_score(labels == index, scores[:, index]),
        },
        abs=1e-6,
    )
    scores /= scores.sum(axis=1, keepdims=True)  # float32 rounds
    assert sklearn.metrics.log_loss(labels, scores) == pytest.approx(result["loss"], abs=1e-6)


def test_export_works_from_a_model_dir_alone(finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("export"))
    done = task("--mode=export", f"--model_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert f"{folder}/export written; its scores are within" in done.stdout
    assert (folder / "export/saved_model.pb").exists()
    assert (folder / "export/assets/vocab.txt").exists()


def inspected(*arguments) -> list[dict]:
    done = task("--mode=inspect_batches", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_inspect_batches_prints_the_ids_of_the_next_batches(flags, finished_run, tmp_path):
    new = inspected(*flags, "--steps=18", f"--model_dir={tmp_path / 'new'}")
    assert [row["step"] for row in new] == list(range(1, 19))
    assert {len(row["ids"]) for row in new} == {16}
    first_epoch = [i for row in new[:15] for i in row["ids"]]
    assert len(set(first_epoch)) == 240
    assert not (tmp_path / "new").exists()
    begun = shutil.copytree(finished_run / "checkpoints", tmp_path / "begun/checkpoints")
    (begun / "checkpoint").write_text('model_checkpoint_path: "ckpt-40"\nall_model_checkpoint_paths: "ckpt-40"\n')
    going_on = inspected(*flags, "--steps=1000", f"--model_dir={tmp_path / 'begun'}")
    assert [row["step"] for row in going_on] == list(range(41, 101))


def test_a_model_dir_without_a_run_cannot_be_evaluated(tmp_path):
    done = task("--mode=evaluate", f"--model_dir={tmp_path}")
    assert done.returncode in (1, 2)
    assert "--model_dir must hold a run" in done.stderr
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr


# --- Several machines -----------------------------------------------------------------------------


def cluster(addresses, index=0) -> dict[str, str]:
    """The environment of that worker."""
    described = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
    return {**os.environ, "TF_CONFIG": json.dumps(described)}


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"TF_CONFIG": '{"cluster": '}, 'TF_CONFIG must be JSON such as {"cluster": {"worker": ["host:port", ...]}'),
        (
            {"TF_CONFIG": '{"sparseCluster": {"worker": {"1": "a:1"}}, "task": {"type": "worker", "index": 1}}'},
            "TF_CONFIG must describe the workers in `cluster` alone. Received: sparseCluster.",
        ),
    ],
    ids=["broken", "sparse"],
)
def test_a_cluster_that_cannot_be_ends_with_2_before_anything_is_written(flags, tmp_path, environment, words):
    folder = tmp_path / "run"
    done = task(*flags, f"--model_dir={folder}", "--strategy=auto", env={**os.environ, **environment})
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {words}")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not folder.exists()


def test_evaluation_is_of_one_machine(finished_run):
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    broken = {**os.environ, "TF_CONFIG": "left over from the training"}
    done = task("--mode=evaluate", f"--model_dir={finished_run}", "--strategy=multi_worker", env=broken)
    assert done.returncode == 2
    assert "--strategy must" in done.stderr
    assert "multi_worker" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")} == before


def run_workers(*commands) -> list[subprocess.CompletedProcess]:
    """Run trainer.task as the workers of a job, the chief first, each with flags of its own."""
    addresses = free_addresses(len(commands))
    with concurrent.futures.ThreadPoolExecutor() as executor:
        started = [
            executor.submit(task, "--cluster_timeout=60", *arguments, env=cluster(addresses, index))
            for index, arguments in enumerate(commands)
        ]
        return [future.result() for future in started]


def test_a_worker_without_the_data_is_named_by_all_with_its_host(flags, tmp_path):
    without = [flag for flag in flags if not flag.startswith("--data_dir")]
    folder = f"--model_dir={tmp_path / 'run'}"
    chief, worker = run_workers([*flags, folder], [*without, f"--data_dir={tmp_path / 'missing'}", folder])
    assert (chief.returncode, worker.returncode) == (1, 1)
    assert "error: Every worker must be able to run the job. Received: worker 1 (127.0.0.1:" in chief.stderr
    for done in (chief, worker):
        assert f"Received: {tmp_path / 'missing'}, which does not exist" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_worker_that_cannot_make_the_model_dir_is_named_by_all(flags, tmp_path):
    (tmp_path / "file").touch()
    chief, worker = run_workers(
        [*flags, f"--model_dir={tmp_path / 'run'}"], [*flags, f"--model_dir={tmp_path / 'file/run'}"]
    )
    assert (chief.returncode, worker.returncode) == (1, 2)
    assert "Received: worker 1 (127.0.0.1:" in chief.stderr
    for done in (chief, worker):
        assert f"{tmp_path / 'file'} is no folder" in done.stderr


def test_a_worker_on_another_disk_is_named_by_all_before_anything_is_written(flags, tmp_path):
    """Its disk has a copy of the run."""
    for name in ("run", "copy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "identity.json").write_text("{}")
    chief, worker = run_workers(
        [*flags, f"--model_dir={tmp_path / 'run'}"],
        [*flags, f"--model_dir={tmp_path / 'copy'}", "--cluster_timeout=5"],
    )
    assert (chief.returncode, worker.returncode) == (1, 2)
    for done in (chief, worker):
        assert f"--model_dir must be a folder that all workers share. Received: {tmp_path / 'copy'}" in done.stderr
        assert "worker 1 (127.0.0.1:" in done.stderr
    for name in ("run", "copy"):
        assert {path.name for path in (tmp_path / name).iterdir()} <= {"identity.json", ".lock"}


def test_a_worker_that_meets_nobody_since_the_run_was_finished_ends_well(flags, finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("result.json"))
    addresses = free_addresses(2)
    arguments = [f"--model_dir={folder}", "--strategy=multi_worker", "--cluster_timeout=6"]
    with concurrent.futures.ThreadPoolExecutor() as executor:
        worker = executor.submit(task, *flags, *arguments, env=cluster(addresses, 1))
        while not worker.done():
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", int(addresses[1].rpartition(":")[2])), timeout=1).close()
                shutil.copy(finished_run / "result.json", folder)  # The chief has finished its export.
            time.sleep(0.1)
    assert worker.result().returncode == 0, worker.result().stderr
    assert f"{folder} holds this run, finished: nothing to do." in worker.result().stderr


def test_a_worker_that_waits_in_vain_says_for_whom_and_leaves_nothing(flags, tmp_path):
    addresses = free_addresses(2)
    arguments = [f"--model_dir={tmp_path / 'run'}", "--strategy=multi_worker", "--cluster_timeout=1"]
    done = task(*flags, *arguments, env=cluster(addresses))
    assert done.returncode == 1
    assert "error: Every worker must be reached within 1 s. Received: no answer from worker 1" in done.stderr
    assert f"({addresses[1]})" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
