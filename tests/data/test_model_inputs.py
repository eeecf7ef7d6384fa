"""The tensors that the model is called with: padding, replicas, workers, and exceptions of the data's generator."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.data import batching, manifests, model_inputs, tokenization, windows
from trainer.errors import Problem, UserError
from trainer.storage.gcs import BucketError

START, END, PADDING = 101, 102, 0  # As in the corpus.
ORDER = batching.ShuffleOrder(7, False, 1 << 18)


@pytest.fixture(scope="module")
def corpus(write_corpus, tmp_path_factory) -> tuple[str, manifests.Manifest]:
    folder = tmp_path_factory.mktemp("corpus")
    return str(folder), write_corpus(folder)


def layout(replicas=1, **changes) -> model_inputs.BatchLayout:
    return model_inputs.BatchLayout(
        **dict(batch_size=5, seq_length=32, truncation="head", pad_multiple=8, replicas=replicas) | changes
    )


def inputs(corpus, layout, examples=18):
    """The dataset's elements as NumPy arrays, and the global batches they were made of."""
    columns = list(batching.train_batches(*corpus, ORDER, layout.batch_size, 0, examples))
    return list(model_inputs.to_model_inputs(iter(columns), corpus[1], layout).as_numpy_iterator()), columns


def test_a_row_is_a_text_between_special_tokens_and_padding(corpus):
    elements, columns = inputs(corpus, layout())
    assert [len(batch["weight"]) for batch in elements] == [5] * 4
    for batch, part in zip(elements, columns, strict=True):
        width = batch["input_word_ids"].shape[1]
        longest = min(part.lengths().max() + 2, 32)
        assert longest <= width < longest + 8
        assert width % 8 == 0
        for row in range(len(part)):
            tokens = [START, *part.tokens.row(row)[:30].tolist(), END]
            assert batch["input_word_ids"][row].tolist() == tokens + [PADDING] * (width - len(tokens))
            assert batch["input_mask"][row].tolist() == [1] * len(tokens) + [0] * (width - len(tokens))
        assert not batch["input_type_ids"].any()
        assert batch["label"][: len(part)].tolist() == part.labels.tolist()


def test_a_width_is_never_beyond_seq_length(corpus):
    elements, _ = inputs(corpus, layout(seq_length=30, pad_multiple=16))
    assert max(batch["input_word_ids"].shape[1] for batch in elements) == 30


def test_a_dataset_is_not_autotuned(corpus):
    # TensorFlow's autotuning thread sleeps for up to a minute, and deleting the iterator waits for it: a run would end,
    # or stop after a signal, that much later.
    assert model_inputs.to_model_inputs(iter(()), corpus[1], layout()).options().autotune.enabled is False


def test_padding_rows_have_weight_0(corpus):
    elements, _ = inputs(corpus, layout(), examples=18)
    assert [batch["weight"].tolist() for batch in elements] == [[1] * 5] * 3 + [[1, 1, 1, 0, 0]]


@pytest.mark.parametrize(("replicas", "pipelines"), [(1, 1), (3, 1), (4, 2)])
def test_a_batch_may_have_the_rows_of_its_examples(corpus, replicas, pipelines):
    columns = list(batching.train_batches(*corpus, ORDER, 6, 0, 18))
    batches = [
        columns[0],
        batching.select_rows(columns[1], np.arange(5)),
        batching.select_rows(columns[2], np.arange(2)),
    ]
    parts = [
        layout(replicas, batch_size=7, fixed_rows=False, pipeline_index=index, pipeline_count=pipelines)
        for index in range(pipelines)
    ]
    made = [list(model_inputs.to_model_inputs(iter(batches), corpus[1], part).as_numpy_iterator()) for part in parts]
    own = replicas // pipelines
    for k, expected in enumerate(batches):
        shares = [share for elements in made for share in elements[k * own : (k + 1) * own]]
        assert {len(share["weight"]) for share in shares} == {-(-len(expected) // replicas)}
        joined = {name: np.concatenate([share[name] for share in shares]) for name in shares[0]}
        (alone,) = model_inputs.to_model_inputs(
            iter([expected]), corpus[1], layout(batch_size=len(expected))
        ).as_numpy_iterator()
        for name, value in alone.items():
            assert (joined[name][: len(expected)] == value).all(), name
        assert not joined["weight"][len(expected) :].any()


def test_an_evaluation_batch_has_no_more_tokens_than_one_of_the_longest():
    widths = np.array([64] * 10 + [40] * 10 + [32] * 15 + [16] * 100 + [8] * 7)
    sizes = model_inputs.plan_evaluation(widths, layout(batch_size=8, fixed_rows=False))
    assert sizes == [8, 8, 8, 16, 32, 32, 32, 64]
    starts = np.cumsum([0, *sizes])
    assert starts[-2] < len(widths) <= starts[-1]
    assert all(size * widths[start] <= 8 * 64 for size, start in zip(sizes, starts, strict=False))
    several_windows = windows.Windows(content=10, stride=5, most=3)
    for same in (layout(batch_size=8), layout(batch_size=8, fixed_rows=False, windows=several_windows)):
        assert model_inputs.plan_evaluation(widths, same) == [8] * 18


@pytest.mark.parametrize("replicas", [2, 3])
def test_replicas_share_the_rows_of_one_batch_in_order(corpus, replicas):
    one, _ = inputs(corpus, layout())
    many, _ = inputs(corpus, layout(replicas))
    assert len(many) == replicas * len(one)
    for k, batch in enumerate(one):
        shares = many[k * replicas : (k + 1) * replicas]
        assert {len(share["weight"]) for share in shares} == {2 if replicas == 3 else 3}
        joined = {name: np.concatenate([share[name] for share in shares]) for name in batch}
        assert joined["weight"].sum() == batch["weight"].sum()
        for name, value in batch.items():
            assert (joined[name][:5] == value).all(), name
        assert not joined["weight"][5:].any()


def test_the_two_texts_of_a_pair_have_different_types(write_corpus, tmp_path):
    elements, columns = inputs((str(tmp_path), write_corpus(tmp_path, texts=2)), layout(seq_length=128))
    for batch, part in zip(elements, columns, strict=True):
        for row in range(len(part)):
            a, b = part.tokens.row(row).tolist(), part.tokens_b.row(row).tolist()
            used = len(a) + len(b) + 3
            assert batch["input_word_ids"][row, :used].tolist() == [START, *a, END, *b, END]
            assert batch["input_type_ids"][row, :used].tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1)
            assert batch["input_mask"][row].sum() == used


def test_labels_of_regression_are_floats(write_corpus, tmp_path):
    elements, columns = inputs((str(tmp_path), write_corpus(tmp_path, kind="regression")), layout())
    assert elements[0]["label"].dtype == np.float32
    assert elements[0]["label"].tolist() == [number / 2 for number in columns[0].ids]


def test_several_labels_are_ones_and_zeros(write_corpus, tmp_path):
    elements, columns = inputs((str(tmp_path), write_corpus(tmp_path, kind="multi_label")), layout())
    rows = [[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 1, 1]]
    assert elements[0]["label"].dtype == np.float32
    assert elements[0]["label"].tolist() == [rows[number % 4] for number in columns[0].ids]


# --- Several workers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replicas", "micro_batches", "workers", "rows"),
    [(1, 1, 1, 5), (2, 1, 2, 6), (4, 1, 2, 8), (2, 3, 2, 6), (3, 2, 3, 6), (4, 2, 4, 8), (6, 1, 3, 6), (8, 1, 2, 8)],
)
def test_every_row_belongs_to_one_worker(replicas, micro_batches, workers, rows):
    layouts = [
        layout(replicas, micro_batches=micro_batches, pipeline_count=workers, pipeline_index=worker)
        for worker in range(workers)
    ]
    assert {one.padded_rows for one in layouts} == {rows}
    assert [row for one in layouts for row in one.pipeline_rows] == list(range(rows))
    assert {len(one.pipeline_rows) for one in layouts} == {rows // workers}
    assert rows // replicas % micro_batches == 0


@pytest.fixture(scope="module")
def any_corpus(request, write_corpus, tmp_path_factory):
    """A corpus of the kind that is the fixture's parameter."""
    folder = tmp_path_factory.mktemp("any")
    changes = {
        "texts": {},
        "pairs": {"texts": 2},
        "numbers": {"kind": "regression"},
        "labels": {"kind": "multi_label"},
    }[request.param]
    return str(folder), write_corpus(folder, **changes)


# Of 18 examples the last batch has 3, so that a replica's rows are partly padding; of 16 it has 1, so that all rows of
# the other workers are padding.
@pytest.mark.parametrize(
    ("any_corpus", "replicas", "micro_batches", "workers", "examples"),
    [
        ("texts", 2, 3, 2, 18),
        ("texts", 4, 1, 2, 16),
        ("pairs", 2, 1, 2, 16),
        ("pairs", 3, 2, 3, 18),
        ("numbers", 2, 1, 2, 16),
        ("labels", 3, 2, 3, 18),
    ],
    indirect=["any_corpus"],
)
def test_workers_have_the_replicas_of_one_process_with_as_many(any_corpus, replicas, micro_batches, workers, examples):
    one_process, columns = inputs(any_corpus, layout(replicas, micro_batches=micro_batches), examples)
    local = replicas // workers
    assert len(one_process) == len(columns) * replicas
    for index in range(workers):
        part = layout(replicas, micro_batches=micro_batches, pipeline_index=index, pipeline_count=workers)
        worker, _ = inputs(any_corpus, part, examples)
        assert len(worker) == len(columns) * local
        for k in range(len(columns)):
            expected = one_process[k * replicas + index * local :][:local]
            for element, other in zip(expected, worker[k * local : (k + 1) * local], strict=True):
                assert element.keys() == other.keys()
                for name, value in element.items():
                    assert other[name].dtype == value.dtype
                    assert other[name].shape == value.shape  # The width is that of the global batch.
                    assert (other[name] == value).all(), name


@pytest.mark.parametrize(("any_corpus", "replicas"), [("texts", 4), ("pairs", 2)], indirect=["any_corpus"])
def test_the_rows_of_two_workers_are_the_batch_of_one_process(any_corpus, replicas):
    one_process, columns = inputs(any_corpus, layout())
    workers = [inputs(any_corpus, layout(replicas, pipeline_index=index, pipeline_count=2))[0] for index in range(2)]
    local = replicas // 2
    for k, batch in enumerate(one_process):
        shares = [share for worker in workers for share in worker[k * local : (k + 1) * local]]
        joined = {name: np.concatenate([share[name] for share in shares]) for name in batch}
        for name, value in batch.items():
            assert (joined[name][:5] == value).all(), name
        assert joined["weight"].sum() == len(columns[k])
        assert not joined["weight"][5:].any()


def test_the_width_is_static_if_every_batch_has_the_same(corpus):
    for padding, expected in ((8, None), (16, None), (32, 32), (64, 32)):
        chosen = layout(2, pad_multiple=padding, pipeline_index=1, pipeline_count=2)
        assert chosen.static_width == expected
        spec = model_inputs.to_model_inputs(iter(()), corpus[1], chosen).element_spec
        assert {tuple(spec[name].shape) for name in ("input_word_ids", "input_mask", "input_type_ids")} == {
            (3, expected)
        }
        assert {tuple(spec[name].shape) for name in ("label", "weight")} == {(3,)}
    elements, _ = inputs(corpus, layout(2, pad_multiple=32))
    assert {batch["input_word_ids"].shape for batch in elements} == {(3, 32)}


# --- Windows ----------------------------------------------------------------------------------------

WINDOWED = dict(seq_length=10, truncation=windows.TRUNCATION, windows=windows.plan_windows(10, 6, 4))


def test_a_row_has_the_windows_of_its_text_and_padding(corpus):
    elements, columns = inputs(corpus, layout(**WINDOWED))
    for batch, part in zip(elements, columns, strict=True):
        tokens = tf.RaggedTensor.from_row_lengths(part.tokens.values, part.tokens.lengths())
        special = tokenization.SpecialTokens(START, END, PADDING)
        packed, counts = windows.pack_windows(tokens, special, 10, WINDOWED["windows"], width=10)
        shape = batch["input_mask"].shape
        assert shape == (5, max(counts), min(10, -(-(part.lengths().max() + 2) // 8) * 8))
        present = batch["input_mask"][:, :, 0] == 1
        assert present.sum(axis=1)[: len(part)].tolist() == counts.numpy().tolist()
        for name, value in packed.items():
            assert batch[name][: len(part)][present[: len(part)]].tolist() == value[:, : shape[2]].numpy().tolist()
        assert not batch["input_mask"][~present].any()


@pytest.mark.parametrize(("replicas", "workers"), [(2, 1), (3, 1), (4, 2)])
def test_replicas_and_workers_share_the_windows_of_one_batch(corpus, replicas, workers):
    one, _ = inputs(corpus, layout(**WINDOWED))
    parts = [
        inputs(corpus, layout(replicas, pipeline_index=index, pipeline_count=workers, **WINDOWED))[0]
        for index in range(workers)
    ]
    local = replicas // workers
    for k, batch in enumerate(one):
        shares = [share for part in parts for share in part[k * local : (k + 1) * local]]
        for name, value in batch.items():
            assert (np.concatenate([share[name] for share in shares])[:5] == value).all(), name


def test_on_a_tpu_every_batch_has_the_most_windows(corpus):
    chosen = layout(2, **WINDOWED | {"pad_multiple": 10})
    spec = model_inputs.to_model_inputs(iter(()), corpus[1], chosen).element_spec
    assert tuple(spec["input_word_ids"].shape) == (3, 4, 10)
    elements, _ = inputs(corpus, chosen)
    assert {batch["input_mask"].shape for batch in elements} == {(3, 4, 10)}


# --- Exceptions of the generator ------------------------------------------------------------------


def read_two_batches_in_a_function(corpus, error, strategy):
    """Train steps in a tf.function, as the inner loop makes them, on a stream that raises `error` after one batch."""

    def stream():
        yield next(batching.train_batches(*corpus, ORDER, 5, 0, 18))
        raise error

    @tf.function
    def inner_loop(iterator, count):
        for _ in tf.range(count):
            strategy.run(lambda batch: tf.reduce_sum(batch["weight"]), args=(next(iterator),))

    replicas = strategy.num_replicas_in_sync
    with model_inputs.original_exceptions(stream()) as recorded:
        batches = model_inputs.distribute_model_inputs(strategy, recorded, corpus[1], layout(replicas))
        inner_loop(batches, tf.constant(2))


@pytest.mark.parametrize(
    "error",
    [
        UserError(Problem("a.tfrecord", "be complete", "3 bytes")),
        BucketError("gs://b/a", "be reached", "503"),
        KeyError("ids"),
    ],
)
@pytest.mark.parametrize("mirrored", [False, True])
def test_an_exception_passes_through_tensorflow_as_it_was_raised(corpus, error, mirrored):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"]) if mirrored else tf.distribute.OneDeviceStrategy("CPU:0")
    with pytest.raises(type(error)) as caught:
        read_two_batches_in_a_function(corpus, error, strategy)
    assert caught.value is error
    assert isinstance(caught.value.__cause__, tf.errors.OpError)


def test_an_error_of_tensorflow_alone_stays_what_it_is():
    error = tf.errors.ResourceExhaustedError(None, None, "out of memory")
    with pytest.raises(tf.errors.ResourceExhaustedError) as caught, model_inputs.original_exceptions(iter(())):
        raise error
    assert caught.value is error


def test_the_end_of_the_batches_is_no_exception(corpus):
    with model_inputs.original_exceptions(batching.train_batches(*corpus, ORDER, 5, 0, 18)) as recorded:
        elements = list(model_inputs.to_model_inputs(recorded, corpus[1], layout()))
    assert len(elements) == 4
