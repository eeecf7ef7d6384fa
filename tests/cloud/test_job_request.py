"""From flags to an order: defaults, the cloud's paths, and every mistake at once."""

import pytest
from test_job_spec import order

from trainer.errors import UsageError


def test_what_is_not_given_is_assumed_and_said():
    made = order(config="configs/imdb_minilm.yaml", machine=None)
    assert made.config.data_dir == "gs://b/data/imdb_minilm"
    assert made.config.encoder == "gs://b/encoders/minilm"
    assert made.base_output_directory == "gs://b/runs/run_1"
    assert made.host.accelerator == "NVIDIA_L4"
    assert [note.split("=")[0] for note in made.notes] == [
        "--machine",
        "--data_dir",
        "--encoder",
        "--base_output_directory",
    ]


@pytest.mark.parametrize("bucket", ["b", "gs://b", "gs://b/"])
def test_a_bucket_may_be_written_with_its_scheme(bucket):
    assert order(bucket=bucket).base_output_directory == "gs://b/runs/run_1"


@pytest.mark.parametrize(
    ("machine", "image"),
    [("cpu", "hubtune"), ("gpu", "hubtune-gpu"), ("workers", "hubtune-gpu"), ("tpu_v5e", "hubtune-tpu")],
)
def test_each_kind_of_machine_has_its_image(machine, image):
    assert order(machine=machine).image == f"us-central1-docker.pkg.dev/p/hubtune/{image}:1.2.3"
    assert order(machine=machine, image="mine").image == "mine"
    assert order(project="example.com:p").image.startswith("us-central1-docker.pkg.dev/example.com/p/hubtune/")


@pytest.mark.parametrize(
    "encoder",
    ["gs://other/encoder", "https://tfhub.dev/x/1", "small_bert/bert_en_uncased_L-4_H-512_A-8", "electra_small"],
)
def test_an_encoder_that_the_cloud_reaches_stays_as_it_is(encoder):
    assert order(encoder=encoder).config.encoder == encoder


def test_no_bucket_is_needed_where_every_path_is_given():
    paths = dict(data_dir="gs://a/data", encoder="gs://a/encoder", base_output_directory="gs://a/run/")
    assert order(bucket=None, **paths).base_output_directory == "gs://a/run"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(project=None), "--project must be given. Received: none."),
        (dict(region=""), "--region must be given. Received: none."),
        (dict(bucket=None), "--bucket must be given"),
        (dict(bucket=None, base_output_directory="gs://a/run"), "--bucket must be given"),
        (dict(base_output_directory="gs:///run"), "--base_output_directory must be gs://BUCKET/NAME"),
        (dict(data_dir="gs://"), "--data_dir must be gs://..."),
        (dict(encoder="gs://"), "--encoder must be gs://..."),
        (dict(machine="tpu_v6e"), "from TPU v6e on"),
        (dict(target="ai_platform", machine="tpu_v3"), "change --target=ai_platform to --target=vertex"),
        (dict(bucket="Not_A/bucket"), "--bucket must be a bucket's name"),
        (dict(name="a b"), "--name must be letters, digits"),
        (dict(data_dir="data/mine"), "--data_dir must be gs://..., where scripts/prepare_data.py"),
        (dict(config=None), "--data_dir must be gs://.*Received: none"),
        (dict(encoder="encoders/minilm"), "--encoder must be gs://.*Received: encoders/minilm."),
        (dict(encoder="small_bert/bert_en_uncased_L-4_H-512_A-9"), "the nearest is small_bert/bert_en_uncased_L-4"),
        (dict(base_output_directory="runs/mine"), "--base_output_directory must be gs://"),
        (dict(overrides=["preprocess=encoders/tiny/preprocess"]), "preprocess must be gs://"),
        (dict(labels=["Team=nlp"]), "--labels must be key=value"),
        (dict(labels=["=nlp"]), "--labels must be key=value"),
        (dict(machine="tpu_v2", overrides=["data.batch_size=7"]), "data.batch_size must be at least .* replicas, 8"),
        (dict(machine="a2-highgpu-8g", replicas=3), "data.batch_size must be at least as many as the replicas, 24"),
        (
            dict(overrides=["data.batchsize=7"]),
            "data.batchsize: a known key was required; the nearest is data.batch_size",
        ),
        (dict(config="configs/none.yaml"), "--config must name a YAML file"),
    ],
)
def test_what_cannot_be_is_refused_with_the_flag_to_change(given, words):
    with pytest.raises(UsageError, match=words):
        order(**given)


def test_every_mistake_is_told_at_once():
    with pytest.raises(UsageError) as refused:
        order(project=None, region="mars", machine="ct6e-standard-4t", overrides=["data.batch_size=0"], labels=["A=b"])
    message = str(refused.value)
    for word in ("--project", "--region", "TPU v6e", "data.batch_size: ", "--labels"):
        assert word in message
