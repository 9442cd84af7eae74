"""Preflight runs all its checks at the same time, until a deadline, and collects their findings."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from components.errors import FashionTuningError, exit_code_of, one_line

DEADLINE_SECONDS = 20.0
"""When the table is shown, whatever has not answered by then: a healthy cluster needs two, a busy machine many times that."""


@dataclass(frozen=True)
class Finding:
    """A problem that would stop a run, or something that could not be checked.

    Attributes:
        check: What was looked at, for example `service account`.
        problem: "Subject must be rule; got value."
        remedy: What to do, often a command.
        exit_code: 69, 77 or 78; 0 for a warning, which stops nothing.
    """

    check: str
    problem: str
    remedy: str
    exit_code: int = os.EX_CONFIG

    @classmethod
    def of(cls, check: str, error: BaseException, *, warning: bool = False) -> "Finding":
        """Make a finding of an error's "problem. Remedy." text."""
        problem, _, remedy = one_line(error).rpartition(". ")
        code = exit_code_of(error)
        if code not in (os.EX_UNAVAILABLE, os.EX_NOPERM, os.EX_CONFIG):
            code = os.EX_CONFIG if code == os.EX_USAGE else os.EX_UNAVAILABLE
        if not problem:
            problem, remedy = remedy, _REMEDIES[code]
        return cls(check, problem, remedy, 0 if warning else code)


_REMEDIES = {
    os.EX_UNAVAILABLE: "Check the network, and try again",
    os.EX_NOPERM: "Ask the owner for that permission, see docs/cluster.md",
    os.EX_CONFIG: "Correct the cluster profile, see docs/cluster.md",
}
"""For errors that name none themselves."""


Check = Callable[[], Iterable[Finding]]


@dataclass(frozen=True)
class Outcome:
    """The findings of all checks together.

    Attributes:
        findings: In the checks' order, errors before warnings, each problem once.
        passed: Names of the checks that looked and found nothing.
        unchecked: Names of the checks that could not look for a reason that is another one's finding already.
    """

    findings: list[Finding]
    passed: list[str]
    unchecked: list[str]

    @property
    def exit_code(self) -> int:
        """The exit code of the gravest finding."""
        return max((finding.exit_code for finding in self.findings), default=0)


def run_checks(checks: dict[str, Check], deadline_seconds: float = DEADLINE_SECONDS) -> Outcome:
    """Run all checks at the same time.

    Args:
        checks: By name; each yields its findings and may raise one of our errors, which becomes a finding.
        deadline_seconds: A check that takes longer becomes a finding itself.
    """
    pool = ThreadPoolExecutor(max_workers=len(checks), thread_name_prefix="preflight")
    futures = {name: pool.submit(_findings, name, check) for name, check in checks.items()}
    wait(futures.values(), timeout=deadline_seconds)
    pool.shutdown(wait=False, cancel_futures=True)
    findings: list[Finding] = []
    for name, future in futures.items():
        if future.done():
            findings += future.result()
        else:
            problem = f"{name} must answer within {deadline_seconds:g} s; got nothing"
            findings.append(Finding(name, problem, "Check the network between here and there", os.EX_UNAVAILABLE))
    # Checks that share a connection fail alike: the first one speaks for all.
    first = {finding.problem: finding for finding in reversed(findings)}
    distinct = [finding for finding in findings if first[finding.problem] is finding]
    reported_checks, failed_checks = ({finding.check for finding in some} for some in (distinct, findings))
    return Outcome(
        findings=sorted(distinct, key=lambda finding: finding.exit_code == 0),
        passed=[name for name in checks if name not in failed_checks],
        unchecked=[name for name in checks if name in failed_checks - reported_checks],
    )


def _findings(name: str, check: Check) -> list[Finding]:
    try:
        return list(check())
    except FashionTuningError as error:
        return [Finding.of(name, error)]
