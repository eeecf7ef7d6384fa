"""The rendezvous of a job's workers, before TensorFlow starts.

TensorFlow waits for a missing worker without end, and without handling SIGTERM. So the workers first connect here, over
plain TCP on the addresses that TensorFlow will use, and tell each other what they are about to run, or why they cannot.
"""

import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from trainer.distributed import handshakes
from trainer.distributed.cluster_config import Cluster
from trainer.distributed.handshakes import Report
from trainer.errors import Problem, UsageError, UserError

# Between two calls to a worker that has not answered; between two lines of the log.
POLL_INTERVAL_S, LOG_INTERVAL_S = 0.5, 15.0
# The first stage: workers of different ones do not answer each other.
JOB_STAGE = "job"
# A worker that cannot run does not wait longer for the others than this: they name it anyway.
TELL_WITHIN_S = 60.0

_LOG = logging.getLogger(__name__)


def exchange_reports(cluster: Cluster, stage: str, report: Report, timeout_s: float) -> dict[int, Report]:
    """Return the other workers' reports, by their indexes, once every worker has reached every other one.

    Workers answer each other only in the same `stage`. Raises, with all workers that it concerns: UserError if others
    cannot run; UsageError, with the names that differ, if others have another signature; and UserError if some are
    missing after `timeout_s`. A worker that reports a problem itself gets the reports that have come: it only tells.
    """
    handshake = handshakes.build_handshake(cluster.index, stage, report)
    others = set(range(len(cluster.addresses))) - {cluster.index}
    reached: set[int] = set()  # The workers that have answered our call; `callers` are those that have called us.
    reports: dict[int, Report] = {}
    started = logged = time.monotonic()
    with handshakes.answer_calls(cluster.addresses[cluster.index], stage, handshake) as callers:
        while True:
            for index in sorted(others - reached):
                answer = handshakes.call(cluster.addresses[index], stage, handshake)
                if answer is not None and answer[0] == index:
                    reports[index] = answer[1]
                    reached.add(index)
                if time.monotonic() - started > timeout_s:
                    break
            reports.update({caller: theirs for caller, theirs in list(callers.items()) if caller in others})
            absent = sorted(others - (reached & callers.keys()))
            waited_s = time.monotonic() - started
            if (not absent or waited_s > timeout_s) and not report.problem:
                _check_reports(cluster, report, reports)  # Not earlier: a worker that left could not tell the others.
            if not absent or (waited_s > timeout_s and report.problem):
                return reports
            missing = ", ".join(f"{index} ({cluster.addresses[index]})" for index in absent)
            if waited_s > timeout_s:
                required, received = f"be reached within {timeout_s:.0f} s", f"no answer from worker {missing}"
                advice = "Start it, correct its address in TF_CONFIG or CLUSTER_SPEC, or raise --cluster_timeout."
                raise UserError(Problem("Every worker", required, received, advice))
            if time.monotonic() - logged > LOG_INTERVAL_S:
                logged = time.monotonic()
                _LOG.info("waiting for worker %s, %.0f of %.0f s", missing, waited_s, timeout_s)
            time.sleep(POLL_INTERVAL_S)


def tell_problem(cluster: Cluster | None, error: Exception, timeout_s: float) -> None:
    """Tell the other workers, if there are any, why this one cannot run: each names it. The caller raises the error."""
    if cluster and len(cluster.addresses) > 1:
        limit_s = min(timeout_s, TELL_WITHIN_S)
        _LOG.info("telling the other workers, for %.0f s at most, that this one cannot run", limit_s)
        with contextlib.suppress(UserError):  # Its port may be in use, too.
            exchange_reports(cluster, JOB_STAGE, Report({}, str(error)), limit_s)


def _check_reports(cluster: Cluster, ours: Report, reports: Mapping[int, Report]) -> None:
    """Raises what exchange_reports does for workers that cannot run, or run another job."""

    def describe(index: int, what: str) -> str:
        return f"worker {index} ({cluster.addresses[index]}){what}"

    unable = [describe(index, f": {report.problem}") for index, report in sorted(reports.items()) if report.problem]
    if unable:
        raise UserError(*(Problem("Every worker", "be able to run the job", received) for received in unable))
    different = []
    for index, report in sorted(reports.items()):
        names = _describe_differences(ours.job_signature, report.job_signature)
        if names:
            received, advice = describe(index, f" with another ({names})"), "Start all workers with the same flags."
            different.append(Problem("Every worker", "run the same configuration on the same data", received, advice))
    if different:
        raise UsageError(*different)


def _describe_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name}: {ours.get(name)} here, {theirs.get(name)} there"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    )
