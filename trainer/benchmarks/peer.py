"""The same work by Hugging Face's transformers on torch, at its best settings on a CPU.

`.venv-peers/bin/python -m trainer.benchmarks.peer KIND JSON` prints figures as JSON. Imports nothing of ours that needs
more than Python, since that environment has no TensorFlow.
"""

import functools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.benchmarks import processes, timing

# What random:PRESET of random_encoders has, as transformers' BertConfig; its defaults are BERT-base.
PRESETS: dict[str, dict[str, int]] = {
    "bert_base": {},
    "tiny": {
        "vocab_size": 1024,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 256,
    },
}
LEARNING_RATE = 1e-4


def _load_model(encoder: str) -> Any:
    """A classifier on an encoder's folder, or on random:PRESET."""
    import transformers

    if encoder.startswith("random:"):
        config = transformers.BertConfig(**PRESETS[encoder.removeprefix("random:")])
        return transformers.BertForSequenceClassification(config)
    return transformers.AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2)


def _load_tokenizer(encoder: str) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(encoder)


def _autocast(precision: str) -> Any:
    import torch

    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")


def _random_batch(model: Any, shape: Sequence[int]) -> dict[str, Any]:
    import torch

    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, tuple(shape), generator=draw)
    labels = torch.randint(0, 2, (shape[0],), generator=draw)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def _median_ms(call: Callable[[], object], rounds: int) -> float:
    return 1000 * statistics.median(timing.time_calls(call, rounds))


def measure_steps(encoder: str, precision: str, shapes: Mapping[str, Sequence[int]], steps: int) -> dict[str, float]:
    """The milliseconds of a train step of each shape, [texts, tokens]: what Trainer does in one."""
    import torch

    model = _load_model(encoder).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=True)

    def step(batch: Mapping[str, Any]) -> None:
        with _autocast(precision):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    def measure(shape: Sequence[int]) -> float:
        batch = _random_batch(model, shape)
        return _median_ms(lambda: step(batch), steps)

    return {name: measure(shape) for name, shape in shapes.items()}


def measure_product(precision: str, shape: Sequence[int], rounds: int) -> dict[str, float]:
    """The largest rate of a dense product of [m, k] and [k, n], in GFLOP/s."""
    import torch

    rows, inner, columns = shape
    left = torch.randn(rows, inner).to(getattr(torch, precision))
    right = torch.randn(inner, columns).to(getattr(torch, precision))
    seconds = min(timing.time_calls(lambda: torch.matmul(left, right), rounds))
    return {"product": 2 * rows * inner * columns / seconds / 1e9}


def evaluate(encoder: str, precision: str, shape: Sequence[int], batches: int) -> dict[str, float]:
    """Texts a second of the forward pass."""
    import torch

    model = _load_model(encoder).train(False)
    batch = _random_batch(model, shape)
    with torch.inference_mode(), _autocast(precision):
        milliseconds = _median_ms(lambda: model(**batch), batches)
    return {"texts_per_second": 1000 * shape[0] / milliseconds}


def _tokenize_split(tokenizer: Any, seq_length: int, folder: str, split: str) -> Any:
    """The Dataset of a split of Inputs.movie_snippets_texts, with its tokens in place of its texts."""
    import datasets

    lines = (Path(folder) / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return datasets.Dataset.from_list([json.loads(line) for line in lines]).map(
        lambda many: tokenizer(many["text"], truncation=True, max_length=seq_length),
        batched=True,
        remove_columns="text",
    )


def train(
    encoder: str,
    texts: str,
    precision: str,
    seq_length: int,
    batch: int,
    epochs: float,
    pad_multiple: int,
    steps: int = -1,
) -> dict[str, float]:
    """Passes by Trainer: training, an evaluation of validation and of test, and the model saved.

    {"examples_per_second": of training, "first_step_seconds": since this process was started}; `steps` ends it early.
    """
    import transformers

    tokenizer, model = _load_tokenizer(encoder), _load_model(encoder)
    tokenize = functools.partial(_tokenize_split, tokenizer, seq_length, texts)
    found: dict[str, float] = {}

    class FirstStep(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            found.setdefault("first_step_seconds", time.time() - float(os.environ[processes.STARTED_VARIABLE]))

    with tempfile.TemporaryDirectory() as folder:
        trainer = transformers.Trainer(
            model=model,
            args=transformers.TrainingArguments(
                output_dir=folder,
                num_train_epochs=epochs,
                max_steps=steps,
                per_device_train_batch_size=batch,
                per_device_eval_batch_size=batch,
                learning_rate=LEARNING_RATE,
                warmup_steps=0.1,
                weight_decay=0.01,
                optim="adamw_torch_fused",
                train_sampling_strategy="group_by_length",
                bf16=precision == "bfloat16",
                use_cpu=True,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_steps=20,
            ),
            train_dataset=tokenize("train"),
            data_collator=transformers.DataCollatorWithPadding(tokenizer, pad_to_multiple_of=pad_multiple),
            callbacks=[FirstStep()],
        )
        done = trainer.train()
        if steps < 0:
            for split in ("validation", "test"):
                trainer.predict(tokenize(split))
            trainer.save_model(folder)
    return {**found, "examples_per_second": done.metrics["train_samples_per_second"]}


def first_step(**values: Any) -> dict[str, float]:
    """The seconds from the start of this process to the end of the first step of `train`."""
    return {"seconds": train(**values, steps=1)["first_step_seconds"]}


def _scorer(encoder: str, precision: str, seq_length: int) -> Callable[[Sequence[str]], Any]:
    """A function of texts: their scores, float32 [texts, classes]."""
    import torch

    tokenizer, model = _load_tokenizer(encoder), _load_model(encoder).train(False)

    def score(lines: Sequence[str]) -> Any:
        inputs = tokenizer(list(lines), truncation=True, max_length=seq_length, padding=True, return_tensors="pt")
        with torch.inference_mode(), _autocast(precision):
            return model(**inputs).logits.float().softmax(-1).numpy()

    return score


def predict(encoder: str, precision: str, texts: str, seq_length: int, batch: int) -> dict[str, float]:
    """Score a file of texts, a line each, in batches of similar length, and write the scores."""
    score = _scorer(encoder, precision, seq_length)
    lines = Path(texts).read_text(encoding="utf-8").splitlines()
    order = sorted(range(len(lines)), key=lambda row: -len(lines[row]))
    scores: list[Any] = [None] * len(lines)
    for rows in _chunks(order, batch):
        for row, values in zip(rows, score([lines[row] for row in rows]), strict=True):
            scores[row] = values.tolist()
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps({"scores": values}) + "\n" for values in scores)
    return {"texts": len(scores)}


def _chunks(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def serve(encoder: str, precision: str, texts: str, seq_length: int, batch: int, calls: int) -> dict[str, float]:
    """As ours.serve."""
    lines = Path(texts).read_text(encoding="utf-8").splitlines()
    return timing.measure_serving(_scorer(encoder, precision, seq_length), lines, batch, calls)


def prepare(encoder: str, table: str, seq_length: int, workers: int) -> dict[str, float]:
    """A .csv with the columns text and label, tokenized by datasets.map and saved."""
    import datasets

    tokenizer = _load_tokenizer(encoder)
    with tempfile.TemporaryDirectory() as folder:
        rows = datasets.load_dataset("csv", data_files=table, split="train", cache_dir=f"{folder}/cache")
        tokenized = rows.map(
            lambda many: tokenizer(many["text"], truncation=True, max_length=seq_length),
            batched=True,
            num_proc=workers,
        )
        tokenized.save_to_disk(f"{folder}/data")
        return {"documents": len(tokenized)}


KINDS: dict[str, Callable[..., dict[str, float]]] = {
    "measure_steps": measure_steps,
    "measure_product": measure_product,
    "evaluate": evaluate,
    "train": train,
    "first_step": first_step,
    "predict": predict,
    "serve": serve,
    "prepare": prepare,
}


def main(arguments: Sequence[str]) -> None:
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true", CUDA_VISIBLE_DEVICES="")
    kind, values = arguments
    processes.print_figures(KINDS[kind](**json.loads(values)))


if __name__ == "__main__":
    main(sys.argv[1:])
