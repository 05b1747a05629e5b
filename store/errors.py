"""The error tree, drawn once. Every family maps to one documented exit code.

    CorrigibleError (1)
    ├── UsageError (2)             bad argument, bad input line
    ├── NotInitialised (10)        no store here yet
    ├── Locked (11)                locked by a passphrase, or busy with another process
    ├── WrongKey (12)              the key does not fit this store
    ├── IntegrityError (13)        store, model, adapter or ledger is damaged or was changed
    ├── BudgetExhausted (14)       the privacy budget does not allow this
    ├── NotEligible (15)           not now: too little evidence, battery, heat, consent missing
    ├── DaemonUnreachable (16)     the background process does not answer
    ├── NetworkError (17)          no network, TLS refused, port taken
    └── ReleaseRejected (18)       signature or content of a release refused

Messages carry ids, counts and file names of the program's own, never prompts or answers.
"""


class CorrigibleError(Exception):
    """Base of every error a person may see.

    Args:
        message: one sentence saying what happened, without any user text.
        hint: one sentence saying what to do next.
        code: stable machine-readable word; the class's own when omitted.
    """

    exit_code = 1
    code = "internal"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code


class UsageError(CorrigibleError):
    """An argument, file or input line cannot be used as given."""

    exit_code = 2
    code = "usage"


class NotInitialised(CorrigibleError):
    """There is no store in this folder."""

    exit_code = 10
    code = "not_initialised"


class Locked(CorrigibleError):
    """The store is locked, or another process holds what is needed."""

    exit_code = 11
    code = "locked"


class WrongKey(CorrigibleError):
    """The key or passphrase does not open this store."""

    exit_code = 12
    code = "wrong_key"


class IntegrityError(CorrigibleError):
    """Something on disk is damaged, truncated, rolled back or foreign."""

    exit_code = 13
    code = "integrity"


class BudgetExhausted(CorrigibleError):
    """The privacy budget does not allow the run."""

    exit_code = 14
    code = "budget_exhausted"


class NotEligible(CorrigibleError):
    """The request is valid but may not happen now."""

    exit_code = 15
    code = "not_eligible"


class DaemonUnreachable(CorrigibleError):
    """The background process does not answer."""

    exit_code = 16
    code = "daemon_unreachable"


class NetworkError(CorrigibleError):
    """A connection, port or TLS handshake failed."""

    exit_code = 17
    code = "network"


class ReleaseRejected(CorrigibleError):
    """A release's signature, lineage or content was refused."""

    exit_code = 18
    code = "release_rejected"
