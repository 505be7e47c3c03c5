"""Sessions: what a task or a request has written, so that its reads do not go to a replica that lacks it."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from time import monotonic, time
from types import TracebackType

from microorm.db.aio.twins import twin

_TOKEN = re.compile(r"(\d{1,15})(?:-([0-9a-f]{1,16}))?")


class Session:
    """What was written, when its last COMMIT was done, and what replica is read.

    *shared*: a program holds it, so that all tasks and threads in it share it. *position* is that of the commit in the log of the
    primary, where it is asked for; None until then. *waited*: a read has waited for a replica to reach it, in vain.
    """

    __slots__ = ("position", "reads_from", "shared", "waited", "written")

    def __init__(self, *, shared: bool = False) -> None:
        self.shared = shared
        self.written: float | None = None
        self.position: int | None = None
        self.reads_from: str | None = None
        self.waited = False

    def wrote(self) -> None:
        """Note a COMMIT that is done."""
        self.written, self.position, self.waited = monotonic(), None, False

    def age(self) -> float | None:
        """Return the seconds since the last COMMIT; None if nothing was written."""
        return None if self.written is None else monotonic() - self.written

    def restore(self, token: str | None) -> None:
        """Take what *token* says. It may come from a browser, so anything else than a token is ignored."""
        found = _TOKEN.fullmatch(token) if isinstance(token, str) else None
        if found is not None:
            self.written = monotonic() - max(0.0, time() - int(found[1]) / 1000)
            self.position = None if found[2] is None else int(found[2], 16)

    def token(self) -> str:
        """Return what `restore` takes; an empty string if nothing was written."""
        age = self.age()
        if age is None:
            return ""
        moment = str(round((time() - age) * 1000))
        return moment if self.position is None else f"{moment}-{self.position:x}"


class HeldSession:
    """`with router.session(token)`: what runs in the block shares one session, whose `token` the next request can take.

    Reads stay on one replica, as long as it can be read, so that no read is older than one before it.
    """

    __slots__ = ("_before", "_current", "_refresh", "_session")

    def __init__(
        self, current: ContextVar[Session | None], token: str | None, refresh: Callable[[Session], bool]
    ) -> None:
        self._current, self._refresh = current, refresh
        self._before: Session | None = None
        self._session = Session(shared=True)
        self._session.restore(token)

    def __enter__(self) -> HeldSession:
        self._before = self._current.get()
        self._current.set(self._session)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not `ContextVar.reset`, which fails in another context than that of `__enter__`.
        before, mine = self._before, self._session
        if mine.written is not None and (before is None or (before.written or 0.0) < mine.written):
            if before is None or not before.shared:
                before = Session()
            before.written, before.position, before.waited = mine.written, mine.position, mine.waited
        self._current.set(before)

    def token(self) -> str:
        """Return a short text of digits and letters for a cookie; empty if a read can go to any replica.

        With `causal=True` this may ask the primary for its position in the log.
        """
        return self._session.token() if self._refresh(self._session) else ""

    atoken = twin(token)
