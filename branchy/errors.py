"""Every error that branchy raises on purpose, in one tree.

A command prints the message of a `BranchyError` on one line and ends with its
`exit_code`: 2 for wrong use, 1 for a failure. A message says what was expected,
what was found and what to do.
"""

from __future__ import annotations


class BranchyError(Exception):
    """Base of all of branchy's errors: a failure, exit code 1."""

    exit_code = 1


class UsageError(BranchyError):
    """The call itself is wrong (a flag, a name, a path): exit code 2."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is wrong; the message names the value and where it came from."""


class ArchitectureError(UsageError):
    """An architecture function or a cut is not what the contract asks for."""


class DatasetError(BranchyError):
    """A data set cannot be read or holds nothing usable."""


class DatasetUsageError(DatasetError, UsageError):
    """A data set's name or path, or its labels and shapes, are not usable: exit code 2."""

    exit_code = 2


class BundleError(BranchyError):
    """A bundle is missing, incomplete, changed, or of another schema version."""


class TrainingError(BranchyError):
    """Training, calibration or export did not give a usable model."""


class ConversionError(TrainingError):
    """LiteRT cannot express a stage; the message names the operation."""


class TuningError(BranchyError):
    """No thresholds keep to what was asked for, or too few samples are there to say so."""


class EngineError(BranchyError):
    """An engine could not load or run a stage."""


class MissingExtraError(BranchyError):
    """An optional part is not installed; the message names the install line."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional part; install it with: pip install 'branchy[{extra}]'")


class ReportError(BranchyError):
    """A results file holds something that branchy does not write; the message names file and line."""


class TransportError(BranchyError):
    """A transport could not do what was asked of it."""


class BrokerUnavailableError(TransportError):
    """No broker answered in the time given."""


class RefusedError(TransportError):
    """The brokers refuse who we are, or what we ask for: trying again does not help."""


class ClusterError(BranchyError):
    """A Kubernetes cluster could not do what was asked of it, or cannot be asked."""


class NoAnswerError(BranchyError):
    """A request got no answer that may be handed on; the message says why."""


class OutputError(BranchyError):
    """The user's own function for answers failed."""


class WireError(BranchyError):
    """A message is malformed; `code` is a short, stable word for the dead-letter header.

    The text quotes what came from outside, so it is kept short and on one line.
    """

    def __init__(self, code: str, message: str) -> None:
        one_line = message.replace("\r", " ").replace("\n", " ")
        super().__init__(one_line if len(one_line) <= 300 else one_line[:299] + "…")
        self.code = code
