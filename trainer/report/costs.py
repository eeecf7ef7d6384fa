"""The section on what the run cost: time, speed, memory, and an estimate of energy by a stated formula."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.report.facts import ReportFacts
from trainer.report.page import Cell, Section, Table, number

# Assumed, since few machines measure it: a processor's core under load, and an accelerator with its share of the host.
CORE_WATTS = 10.0
ACCELERATOR_WATTS = {"GPU": 350.0, "TPU": 250.0}
# Assumed prices of a rented machine, US dollars an hour.
CORE_PRICE = 0.05
ACCELERATOR_PRICE = {"GPU": 3.0, "TPU": 1.5}


def watts_and_price(machine: Mapping[str, Any]) -> tuple[float, float, str]:
    """(watts, US dollars an hour, what was assumed) of result.json's machine.

    On processors, `devices` are the workers, each taken to have a machine of its own, like that of the first.
    """
    kind, count = machine["device_type"], machine["devices"]
    if kind in ACCELERATOR_WATTS:
        watts, price = ACCELERATOR_WATTS[kind], ACCELERATOR_PRICE[kind]
        return count * watts, count * price, f"{count} {kind} x {watts:g} W and x ${price:g} an hour"
    cores = count * machine["cores"]
    return cores * CORE_WATTS, cores * CORE_PRICE, f"{cores} cores x {CORE_WATTS:g} W and x ${CORE_PRICE:g} an hour"


def train_speed(history: Sequence[Mapping[str, Any]]) -> float | None:
    """The median of the train lines' examples a second."""
    speeds = [line["examples_per_second"] for line in history if "examples_per_second" in line]
    return float(np.median(speeds)) if speeds else None


def section(facts: ReportFacts) -> Section:
    result, seconds = facts.result, float(facts.result["seconds"])
    speed = train_speed(facts.history)
    rows = [
        [Cell("time, all of the run's processes, s"), Cell(f"{seconds:,.1f}", "seconds")],
        [Cell("training, examples/s (median)"), Cell(f"{speed:,.1f}" if speed else "")],
        [Cell("steps"), number(result["steps"], "steps")],
        [Cell("precision of training steps"), Cell(result["precision"])],
    ]
    sentences, method = [], []
    if machine := result.get("machine"):
        watts, price, assumed = watts_and_price(machine)
        hours = seconds / 3600
        rows += [
            [Cell("devices"), Cell(f"{machine['devices']} x {machine['device_name']}")],
            [Cell("most memory of the process, GB"), Cell(f"{machine['peak_memory_bytes'] / 1e9:.2f}")],
            [Cell("energy, Wh (estimated)"), Cell(f"{hours * watts:.3g}")],
            [Cell("rent, US$ (estimated)"), Cell(f"{hours * price:.2g}")],
        ]
        sentences = [
            f"Estimated: {hours * watts:.3g} Wh and US${hours * price:.2g}, if nothing else used the machine meanwhile."
        ]
        method = [f"Energy = hours x watts, rent = hours x price. Assumed, not measured: {assumed}."]
    versions = [[Cell(name), Cell(version)] for name, version in result["versions"].items()]
    return Section(
        "cost",
        "What it cost",
        sentences,
        tables=[Table("Time and cost", [], rows), Table("Versions", [], versions)],
        method=method,
    )
