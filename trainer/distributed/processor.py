"""This machine's processor, as Linux describes it."""

import contextlib
import dataclasses
import os
import platform

DESCRIPTION_FILE = "/proc/cpuinfo"


@dataclasses.dataclass(frozen=True)
class Processor:
    name: str  # The model, or the architecture where Linux names no model.
    features: frozenset[str]  # By Linux's names, such as avx512_bf16. Empty on other systems.
    cores: int  # Those that this process may use.

    @property
    def has_bfloat16(self) -> bool:
        """Whether it computes products in bfloat16, rather than emulate them."""
        return bool({"amx_bf16", "avx512_bf16"} & self.features)


def describe_processor() -> Processor:
    """The first processor of this machine, which stands for all."""
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError), open(DESCRIPTION_FILE, encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    return Processor(
        name=fields.get("model name") or platform.machine(),
        features=frozenset(fields.get("flags", "").split()),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    )
