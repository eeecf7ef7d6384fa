"""ROWS: what is measured, as data. Another row is an entry here and a function of its contenders."""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainer import child_process
from trainer.benchmarks.inputs import QUICK, ROOT, Inputs, Sizes

OURS, FUSED, PEER = "ours", "ours, fused", "peer"
# glibc asks for huge pages, as in the Makefile: the best setting of both sides on a CPU.
VARIABLES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# oneDNN's cache has its own default, and is not off as `import trainer` sets it for TensorFlow, which would cost torch
# much of its time.
PEER_VARIABLES = {**VARIABLES, "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024"}
PEER_WORKERS = 2  # Processes of datasets.map.
SNIPPET_TOKENS = 64
PAD_MULTIPLE = 8
# In an argument of a command: the empty folder of its own that a measurement gets.
FOLDER = "{folder}"


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number that a measurement gives."""

    title: str  # What follows the row's title in a table.
    unit: str
    higher_is_better: bool = False


@dataclasses.dataclass(frozen=True)
class Contender:
    """A command that is measured. A name that begins with PEER is a peer's."""

    name: str
    command: tuple[str, ...]
    size: int | None = None  # Where it is on a growth curve.
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    printed: bool = False  # Whether its last line has figures as JSON.
    run: str = ""  # The model_dir that it leaves in its folder, whose metrics.jsonl has figures.
    until: str = ""  # It is measured until this file in its folder has content.
    stops: bool = False  # Whether it ends with the exit code of a stop.


@dataclasses.dataclass(frozen=True)
class Row:
    title: str
    figures: Mapping[str, Figure]
    contenders: Callable[[Inputs], list[Contender]]
    needs_imdb: bool = False
    in_default: bool = False  # Whether `make bench` measures it.
    once: bool = False  # Too long to be repeated.


def ours(name: str, kind: str, *, size: int | None = None, **values: Any) -> Contender:
    """A function of benchmarks.ours, in a process of its own."""
    command = child_process.command("trainer.benchmarks.ours", kind, json.dumps(values))
    return Contender(name, tuple(command), size, VARIABLES, printed=True)


def peers(
    inputs: Inputs, kind: str, *, name: str = PEER, size: int | None = None, encoder: str | None = "", **values: Any
) -> list[Contender]:
    """A function of benchmarks.peer, run by the peers' Python. Nothing without one.

    `encoder` is random:PRESET, "" for the settings' own, None for a function without one.
    """
    python = inputs.settings.peer_python
    if python is None:
        return []
    if encoder is not None:
        values["encoder"] = encoder or str(inputs.hugging_face_encoder())
    command = (str(python), "-m", "trainer.benchmarks.peer", kind, json.dumps(values))
    return [Contender(name, command, size, PEER_VARIABLES, printed=True)]


def job(name: str, encoder: Path, data: Path, *settings: str, until: str = "") -> Contender:
    """A job in a model_dir of its own, as a user starts it."""
    flags = (f"--encoder={encoder}", f"--data_dir={data}", f"--model_dir={FOLDER}/run", "--strategy=cpu")
    command = (*child_process.command("trainer.task"), *flags, *settings)
    return Contender(name, command, variables=VARIABLES, run="run", until=until)


def script(name: str, file: str, *arguments: str, size: int | None = None) -> Contender:
    return Contender(name, (sys.executable, str(ROOT / "scripts" / file), *arguments), size, VARIABLES)


# --- Training --------------------------------------------------------------------------------------


def steps_of(
    inputs: Inputs, shapes: Mapping[str, tuple[int, int]], *, encoder: str = "", size: int | None = None
) -> list[Contender]:
    """Train steps of each shape, (texts, tokens). `encoder` is that of the settings if it is ""."""
    settings = inputs.settings
    values: dict[str, Any] = dict(precision=settings.precision, shapes=shapes, steps=settings.sizes.steps, size=size)
    own = encoder or str(inputs.encoder())
    return [
        ours(OURS, "measure_steps", encoder=own, fused=False, **values),
        ours(FUSED, "measure_steps", encoder=own, fused=True, **values),
        *peers(inputs, "measure_steps", encoder=encoder, **values),
    ]


def _steps(inputs: Inputs) -> list[Contender]:
    sizes = inputs.settings.sizes
    return steps_of(inputs, {str(width): (sizes.batch, width) for width in sizes.widths})


def _large_steps(inputs: Inputs) -> list[Contender]:
    sizes = inputs.settings.sizes
    width = sizes.widths[1]
    return steps_of(inputs, {str(width): (sizes.batch, width)}, encoder=f"random:{sizes.large_encoder}")


def _products(inputs: Inputs) -> list[Contender]:
    settings = inputs.settings
    values: dict[str, Any] = dict(precision=settings.precision, shape=settings.sizes.product, rounds=30)
    return [ours(OURS, "measure_product", **values), *peers(inputs, "measure_product", encoder=None, **values)]


def _first_step(inputs: Inputs) -> list[Contender]:
    settings = ("--precision=auto", f"--data.seq_length={SNIPPET_TOKENS}", "--training.log_every=1")
    started = job(OURS, inputs.encoder(), inputs.movie_snippets(), *settings, until="run/metrics.jsonl")
    texts = inputs.movie_snippets_texts()
    return [started, *_training_peers(inputs, texts, SNIPPET_TOKENS, "first_step")]


def _training_peers(inputs: Inputs, texts: Path, seq_length: int, kind: str = "train") -> list[Contender]:
    settings = inputs.settings
    values: dict[str, Any] = dict(texts=str(texts), seq_length=seq_length, pad_multiple=PAD_MULTIPLE)
    values |= dict(precision=settings.precision, batch=settings.sizes.batch, epochs=settings.sizes.epochs)
    return peers(inputs, kind, **values)


def passes(inputs: Inputs, data: Path, texts: Path, seq_length: int) -> list[Contender]:
    """One pass over a data set: ours evaluates, tests and checks an export, the peer predicts both and saves."""
    settings = (
        *("--precision=auto", "--logging.report=off", f"--data.pad_multiple={PAD_MULTIPLE}"),
        *(f"--data.seq_length={seq_length}", f"--data.batch_size={inputs.settings.sizes.batch}"),
        f"--training.epochs={inputs.settings.sizes.epochs}",
    )
    fastest = ("--model.fused=on", "--eval_precision=auto")
    return [
        job(OURS, inputs.encoder(), data, *settings),
        job(f"{FUSED}, {inputs.settings.precision}", inputs.encoder(), data, *settings, *fastest),
        *_training_peers(inputs, texts, seq_length),
    ]


def _snippets_pass(inputs: Inputs) -> list[Contender]:
    return passes(inputs, inputs.movie_snippets(), inputs.movie_snippets_texts(), SNIPPET_TOKENS)


def _reviews_pass(number: int) -> Callable[[Inputs], list[Contender]]:
    def contenders(inputs: Inputs) -> list[Contender]:
        sizes = inputs.settings.sizes
        data, texts = inputs.reviews(sizes.reviews), inputs.reviews_texts(sizes.reviews)
        return passes(inputs, data, texts, sizes.caps[number])

    return contenders


# --- Evaluation, prediction, preparation ------------------------------------------------------------


def _precisions(inputs: Inputs) -> list[str]:
    """Those without emulation."""
    return list(dict.fromkeys(("float32", inputs.settings.precision)))


def _evaluations(inputs: Inputs) -> list[Contender]:
    sizes = inputs.settings.sizes
    values: dict[str, Any] = dict(shape=(sizes.batch, sizes.eval_width), batches=sizes.eval_batches)
    encoder = str(inputs.encoder())
    found = []
    for precision in _precisions(inputs):
        for fused in (False, True):
            name = f"{FUSED if fused else OURS}, {precision}"
            found.append(ours(name, "evaluate", encoder=encoder, precision=precision, fused=fused, **values))
        found += peers(inputs, "evaluate", name=f"{PEER}, {precision}", precision=precision, **values)
    return found


def _predictions(inputs: Inputs, texts: Path) -> list[Contender]:
    sizes = inputs.settings.sizes
    values: dict[str, Any] = dict(texts=str(texts), seq_length=sizes.eval_width, batch=sizes.batch)
    found = []
    for precision in _precisions(inputs):
        flags = (f"--model={inputs.run(precision)}/export", f"--input={texts}", f"--output={FOLDER}/scored.jsonl")
        found.append(script(f"{OURS}, {precision}", "predict.py", *flags))
        found += peers(inputs, "predict", name=f"{PEER}, {precision}", precision=precision, **values)
    return found


def _short_predictions(inputs: Inputs) -> list[Contender]:
    return _predictions(inputs, inputs.short_texts())


def _review_predictions(inputs: Inputs) -> list[Contender]:
    return _predictions(inputs, inputs.long_texts())


def _serving(inputs: Inputs) -> list[Contender]:
    sizes = inputs.settings.sizes
    values: dict[str, Any] = dict(texts=str(inputs.short_texts()), batch=sizes.batch, calls=sizes.calls)
    found = []
    for precision in _precisions(inputs):
        found.append(ours(f"{OURS}, {precision}", "serve", export=f"{inputs.run(precision)}/export", **values))
        of_peer = dict(precision=precision, seq_length=sizes.eval_width, **values)
        found += peers(inputs, "serve", name=f"{PEER}, {precision}", **of_peer)
    return found


def _preparations(inputs: Inputs) -> list[Contender]:
    table = inputs.table(inputs.settings.sizes.all_reviews)
    flags = ("--task=csv", f"--source={table}", f"--encoder={inputs.encoder()}", f"--output={FOLDER}/data")
    values: dict[str, Any] = dict(table=str(table), seq_length=512, workers=PEER_WORKERS)
    return [script(OURS, "prepare_data.py", *flags), *peers(inputs, "prepare", **values)]


SECONDS = Figure("", "s")
MEMORY = Figure(", peak memory", "MB")
PASS = {
    "seconds": Figure(", whole process", "s"),
    "examples_per_second": Figure(", of it training", "examples/s", higher_is_better=True),
    "memory_mb": MEMORY,
}
# By the width of a batch. Those that nothing measured are in no table.
STEPS = {str(width): Figure(f", {width} tokens", "ms") for width in (*Sizes().widths, *QUICK.widths)}

ROWS = {
    "start": Row("command to the end of the first step", {"seconds": SECONDS}, _first_step, in_default=True),
    "step": Row("step of 32 texts", STEPS, _steps, in_default=True),
    "product": Row(
        "largest rate of 4096 x 384 x 1536",
        {"product": Figure("", "GFLOP/s", higher_is_better=True)},
        _products,
        in_default=True,
    ),
    "evaluation": Row(
        "evaluation, 256 tokens",
        {"texts_per_second": Figure("", "texts/s", higher_is_better=True)},
        _evaluations,
        in_default=True,
    ),
    "serving": Row(
        "serving an export",
        {
            "p50_ms": Figure(", one short text, median", "ms"),
            "p95_ms": Figure(", one short text, 95th percentile", "ms"),
            "texts_per_second": Figure(", 32 short texts a call", "texts/s", higher_is_better=True),
        },
        _serving,
        in_default=True,
    ),
    "pass": Row("movie_snippets, one pass", PASS, _snippets_pass),
    "predict_short": Row("predict.py, 10,000 short texts", {"seconds": SECONDS}, _short_predictions),
    "predict_reviews": Row("predict.py, 1,000 reviews", {"seconds": SECONDS}, _review_predictions, needs_imdb=True),
    "reviews_256": Row("2,000 reviews, one pass, 256 tokens", PASS, _reviews_pass(0), needs_imdb=True),
    "reviews_512": Row("2,000 reviews, one pass, 512 tokens", PASS, _reviews_pass(1), needs_imdb=True),
    "prepare": Row(
        "50,000 reviews prepared", {"seconds": SECONDS, "memory_mb": MEMORY}, _preparations, needs_imdb=True
    ),
    "step_large": Row("step of 32 texts, BERT-base", STEPS, _large_steps),
}
