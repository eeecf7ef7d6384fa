"""The report's files from the facts: the sections in their order, one after another."""

import logging
from collections.abc import Callable

from trainer.report import (
    calibration,
    classes,
    comparison,
    costs,
    curves,
    data_card,
    error_analysis,
    label_errors,
    model_card,
    numbers,
    page,
    slices,
    usage,
)
from trainer.report.facts import ReportFacts
from trainer.report.page import Section

_LOG = logging.getLogger(__name__)

# In the order of the page. Each returns None where a run has nothing of its kind. A new section is an entry here.
SECTIONS: tuple[Callable[[ReportFacts], Section | None], ...] = (
    comparison.section,
    classes.section,
    numbers.section,
    calibration.section,
    slices.section,
    error_analysis.section,
    label_errors.section,
    data_card.section,
    curves.section,
    costs.section,
    usage.section,
)


def build_page(facts: ReportFacts, check_stop: Callable[[], None] = lambda: None) -> str:
    """report.html. A section that fails is left out with a warning. `check_stop` may end the work by raising."""
    sections = []
    for build in SECTIONS:
        check_stop()
        try:
            section = build(facts)
        except Exception as error:  # One section must not cost the others.
            _LOG.warning("the report has no section %s: %s", build.__module__.rpartition(".")[2], repr(error)[:300])
            continue
        if section:
            sections.append(section)
    title = f"{facts.manifest.task}: {facts.result['encoder']['name']}"
    return page.render(title, f"A report by HubTune on the run in {facts.model_dir}", sections)


def build_files(facts: ReportFacts, check_stop: Callable[[], None] = lambda: None) -> dict[str, str]:
    """File name -> content: the page, the model card, and for classes the likely label errors.

    A file that fails is left out with a warning.
    """
    files = {"report.html": build_page(facts, check_stop)}
    others = {"model_card.md": model_card.write}
    if facts.by_class:
        others["label_errors.jsonl"] = label_errors.write
    for name, write in others.items():
        check_stop()
        try:
            files[name] = write(facts)
        except Exception as error:  # As with the sections.
            _LOG.warning("the report has no %s: %s", name, repr(error)[:300])
    return files
