"""From flags to a request: defaults, the cloud's paths, and every mistake at once."""

import pytest

from trainer.errors import Problem, UsageError


def test_what_is_not_given_has_a_default(build_request):
    request = build_request(config="configs/imdb_minilm.yaml", machine=None)
    assert request.config.data_dir == "gs://b/data/imdb_minilm"
    assert request.config.encoder == "gs://b/encoders/minilm"
    assert request.base_output_directory == "gs://b/runs/run_1"
    assert request.machine.accelerator_type == "NVIDIA_L4"
    assert [default.split("=")[0] for default in request.defaults] == [
        "--machine",
        "--data_dir",
        "--encoder",
        "--base_output_directory",
    ]
    assert build_request(name=None).name.startswith("smoke_20")


@pytest.mark.parametrize("bucket", ["b", "gs://b", "gs://b/"])
def test_a_bucket_may_be_written_with_its_scheme(build_request, bucket):
    assert build_request(bucket=bucket).base_output_directory == "gs://b/runs/run_1"


@pytest.mark.parametrize(
    ("machine", "image"),
    [("cpu", "hubtune"), ("gpu", "hubtune-gpu"), ("workers", "hubtune-gpu"), ("tpu_v5e", "hubtune-tpu")],
)
def test_each_kind_of_machine_has_its_image(build_request, machine, image):
    assert build_request(machine=machine).image == f"us-central1-docker.pkg.dev/p/hubtune/{image}:1.2.3"
    assert build_request(machine=machine, image="mine").image == "mine"
    of_a_domain = build_request(project="example.com:p").image
    assert of_a_domain.startswith("us-central1-docker.pkg.dev/example.com/p/hubtune/")


@pytest.mark.parametrize(
    "encoder",
    [
        *("gs://other/encoder", "https://tfhub.dev/x/1", "tfhub.dev/google/x/1", "google/bert/TensorFlow2/x/1"),
        *("small_bert/bert_en_uncased_L-4_H-512_A-8", "electra_small"),
    ],
)
def test_an_encoder_that_the_cloud_reaches_stays_as_it_is(build_request, encoder):
    assert build_request(encoder=encoder).config.encoder == encoder


def test_no_bucket_is_needed_where_every_path_is_given(build_request):
    paths = dict(data_dir="gs://a/data", encoder="gs://a/encoder", base_output_directory="gs://a/run/")
    assert build_request(bucket=None, **paths).base_output_directory == "gs://a/run"


@pytest.mark.parametrize(
    ("given", "setting", "received"),
    [
        (dict(project=None), "--project", "none"),
        (dict(region=""), "--region", "none"),
        (dict(region="mars"), "--region", "mars"),
        (dict(bucket=None), "--bucket", "none"),
        (dict(bucket=None, base_output_directory="gs://a/run"), "--bucket", "none"),
        (dict(bucket="Not_A/bucket", base_output_directory="gs://a/run", data_dir="gs://a/data",
              encoder="gs://a/encoder"), "--bucket", "Not_A/bucket"),
        (dict(base_output_directory="gs:///run"), "--base_output_directory", "gs:///run"),
        (dict(base_output_directory="runs/mine"), "--base_output_directory", "runs/mine"),
        (dict(data_dir="gs://"), "--data_dir", "gs://"),
        (dict(data_dir="data/mine"), "--data_dir", "data/mine"),
        (dict(config=None), "--data_dir", "none"),
        (dict(encoder="gs://"), "--encoder", "gs://"),
        (dict(encoder="encoders/minilm"), "--encoder", "encoders/minilm"),
        (dict(machine="tpu_v6e"), "--machine", "tpu_v6e"),
        (dict(name="a b"), "--name", "a b"),
        (dict(set=["preprocess=encoders/tiny/preprocess"]), "preprocess", "encoders/tiny/preprocess"),
        (dict(set=["init_from=runs/mine"]), "--init_from", "runs/mine"),
        (dict(set=["encoders.mirror=mirror"]), "--encoders.mirror", "mirror"),
        (dict(encoder="kaggle.com/models/google/bert"), "--encoder", "kaggle.com/models/google/bert"),
        (dict(labels=["Team=nlp"]), "--labels", "Team=nlp"),
        (dict(labels=["=nlp"]), "--labels", "=nlp"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_with_the_flag_to_change(build_request, given, setting, received):
    with pytest.raises(UsageError) as caught:
        build_request(**given)
    (problem,) = caught.value.problems
    assert isinstance(problem, Problem)
    assert (problem.setting, problem.received) == (setting, received)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(machine="tpu_v2", set=["data.batch_size=7"]), "data.batch_size"),
        (dict(machine="a2-highgpu-8g", replicas=3), "24"),
        (dict(set=["data.batchsize=7"]), "nearest is data.batch_size"),
        (dict(config="configs/none.yaml"), "--config"),
        (dict(encoder="small_bert/bert_en_uncased_L-4_H-512_A-9"), "nearest is small_bert/bert_en_uncased_L-4"),
    ],
)
def test_a_configuration_that_cannot_run_is_refused(build_request, given, words):
    with pytest.raises(UsageError, match=words):
        build_request(**given)


def test_every_mistake_is_reported_at_once(build_request):
    with pytest.raises(UsageError) as refused:
        build_request(
            project=None, region="mars", machine="ct6e-standard-4t", set=["data.batch_size=0"], labels=["A=b"]
        )
    message = str(refused.value)
    for words in ("--project", "--region", "TPU v6e", "data.batch_size", "--labels"):
        assert words in message
