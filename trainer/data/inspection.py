"""A prepared data set described for a person to read."""

import numpy as np

from trainer.data import manifests, records, tokenization
from trainer.storage import fs

MAX_SHOWN_CLASSES = 5


def summarize_data_set(folder: str) -> str:
    """Counts by split and class, lengths in tokens, and the rows that were left out. Raises what read_manifest does."""
    manifest = manifests.read_manifest(folder)
    lines = [f"{folder}: {manifest.task}, {manifest.kind}" + (", pairs of texts" if manifest.texts == 2 else "")]
    for name, split in manifest.splits.items():
        labels = ", ".join(f"{' '.join(label.split())} {count:,}" for label, count in split.label_counts.items())
        if none := manifest.findings.without_label.get(name):
            labels += f"; {none:,} without a label"
        lengths = ", ".join(f"{p} % {n}" for p, n in split.length_percentiles.items())
        lines.append(
            f"  {name:<10} {split.examples:>7,} examples" + (f" ({labels})" if labels else "") + f"; tokens: {lengths}"
        )
    left_out = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in manifest.removed.items())
    lines.append(f"  left out: {left_out}")
    found = manifest.findings
    if found.label_decision:
        lines.append(f"  labels: {found.label_decision}")
    if found.copies:
        lines.append(f"  {found.copies:,} rows repeat a text; all copies of a text are in one split")
    if found.contradicting_texts:
        shown = "; ".join(found.contradicting_examples)
        lines.append(f"  {found.contradicting_texts:,} texts have copies with other labels, such as {shown}")
    if found.train_only_classes:
        shown = ", ".join(map(repr, found.train_only_classes[:MAX_SHOWN_CLASSES]))
        count = (
            f"{len(found.train_only_classes):,} classes have" if len(found.train_only_classes) > 1 else "1 class has"
        )
        lines.append(f"  {count} no text in validation or none in test, so that they are not measured there: {shown}")
    return "\n".join(lines)


def describe_data_set(folder: str, examples: int = 3) -> str:
    """summarize_data_set, the histogram of lengths, and the first training examples with the pieces of their tokens."""
    manifest = manifests.read_manifest(folder, "--inspect")
    train = manifest.splits["train"]
    lines = [
        summarize_data_set(folder),
        f"  vocabulary: {manifest.vocabulary.size:,} pieces, "
        f"{'uncased' if manifest.vocabulary.lower_case else 'cased'}, of {manifest.encoder}",
    ]
    lines.append(
        "  tokens in train: " + ", ".join(f"to {bound} {count:,}" for bound, count in train.length_histogram.items())
    )
    columns = records.read_shards(folder, train.shards[:1], manifest, with_text=True)
    pieces = tokenization.vocabulary_pieces(fs.join(folder, manifests.PREPROCESS_FOLDER))
    for row in range(min(examples, len(columns))):
        if manifest.kind == "multi_label":
            label = ", ".join(np.array(manifest.labels)[columns.labels[row]]) or "no label"
        else:
            label = manifest.labels[columns.labels[row]] if manifest.labels else f"{columns.labels[row]:.7g}"
        lines.append(f"\nexample {columns.ids[row]!r}: {label}")
        lines.append(f"  text:   {columns.texts[row]}" if columns.texts else "")
        lines.append("  tokens: " + " ".join(pieces[i] for i in columns.tokens.row(row)))
        if columns.tokens_b and columns.texts_b:
            lines.append(f"  text_b:   {columns.texts_b[row]}")
            lines.append("  tokens_b: " + " ".join(pieces[i] for i in columns.tokens_b.row(row)))
    return "\n".join(lines)
