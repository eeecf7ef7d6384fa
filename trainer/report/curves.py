"""The section on the training: loss and metric over the steps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.report import charts
from trainer.report.facts import ReportFacts
from trainer.report.page import Figure, Section


def section(facts: ReportFacts) -> Section:
    result = facts.result
    best, steps = result["best_step"], result["steps"]
    evaluations = len(lines_of(facts.history, "validation"))
    sentences = [
        f"{steps:,} steps; the weights are those of step {best:,}, the best of {evaluations:,} "
        f"evaluation{'s' * (evaluations > 1)} by validation {facts.metric.replace('_', ' ')}.",
        describe_gap(facts.history, best),
    ]
    figures = [
        Figure(draw_curve(facts, "loss"), "The loss of training and of validation. The dotted line is the best step."),
        Figure(draw_curve(facts, facts.main_metric), f"The {facts.main_metric.replace('_', ' ')}, with that of test."),
    ]
    return Section("training", "The training", sentences, figures=figures)


def lines_of(history: Sequence[Mapping[str, Any]], split: str) -> list[Mapping[str, Any]]:
    return [line for line in history if line["split"] == split]


def describe_gap(history: Sequence[Mapping[str, Any]], best_step: int) -> str:
    """How the loss of validation went on after the best step, as a sentence. "" if that was the last."""
    after = [line["loss"] for line in lines_of(history, "validation") if line["step"] > best_step]
    best = [line["loss"] for line in lines_of(history, "validation") if line["step"] == best_step]
    if not after or not best:
        return ""
    if after[-1] > 1.05 * best[0]:
        return "After it, the validation loss rose: longer training would overfit."
    if after[-1] < 0.95 * best[0]:
        return "After it, the validation loss went on falling: more steps may help."
    return "After it, the loss of validation stayed about the same."


def draw_curve(facts: ReportFacts, metric: str) -> str:
    """One metric of train and validation over the steps, and test's."""

    def plot(axes: Any) -> None:
        for split, style in (
            ("train", dict(color=charts.MUTED, linewidth=1.0)),
            ("validation", dict(color=charts.ACCENT, marker="o", markersize=4)),
        ):
            points = [
                (line["step"], line[metric])
                for line in lines_of(facts.history, split)
                if math.isfinite(line.get(metric, math.nan))
            ]
            if points:
                axes.plot(*charts.thin(*zip(*points, strict=True)), label=split, **style)
        if metric in facts.result["test"] and metric != "loss":
            axes.plot(
                facts.result["steps"], facts.result["test"][metric], "D", markersize=6, color=charts.WARM, label="test"
            )
        axes.axvline(facts.result["best_step"], color=charts.MUTED, linestyle=":", linewidth=1)
        axes.set_xlabel("step")
        axes.legend()

    return charts.draw(f"curve-{metric.replace('_', '-')}", metric.replace("_", " "), plot)
