"""Trying again what failed for a passing reason: how long, and with which pauses."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, stop_after_delay
from tenacity.wait import wait_random_exponential

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.2
"""Seconds that the first pause takes at most; each that follows, twice as long."""

LONGEST_PAUSE = 10.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long something that failed for a passing reason is tried again.

    The pauses are drawn between nothing and a length that doubles ("full jitter"), so that those
    who met the same fault do not come back at the same moment. Nothing begins after the time is
    up, so all tries together take `seconds` and one try more at most.

    Where one patience works inside another, the inner one has used up the time of both.

    Attributes
    ----------
    seconds : float
        Time for all tries; with 0 there is one.
    is_transient : callable
        Tells which errors are worth another try; all others are raised at once.
    """

    seconds: float
    is_transient: Callable[[BaseException], bool]

    def call(self, action: Callable[[], T]) -> T:
        """Return what `action` returns, or raise its last error."""
        began = time.monotonic()
        # Nearly every call is good at once, and a retrying object costs more than a look at a file.
        try:
            return action()
        except Exception as error:
            if not self.is_transient(error):
                raise
            failed = [error]

        def once() -> T:
            if failed:
                raise failed.pop()
            return action()

        left = replace(self, seconds=max(0.0, self.seconds - (time.monotonic() - began)))
        return Retrying(**left._policy())(once)

    async def call_async(self, action: Callable[[], Awaitable[T]]) -> T:
        """As :meth:`call`, without blocking the event loop."""
        result: T = await AsyncRetrying(**self._policy())(action)
        return result

    def _policy(self) -> dict[str, Any]:
        return {
            "retry": retry_if_exception(self.is_transient),
            "stop": stop_after_delay(self.seconds),
            "wait": self._next_pause,
            "before_sleep": _log,
            "reraise": True,
        }

    def _next_pause(self, state: RetryCallState) -> float:
        draw = wait_random_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE)
        left = self.seconds - (state.seconds_since_start or 0.0)
        return float(min(draw(state), max(0.0, left)))


def _log(state: RetryCallState) -> None:
    failure = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0.0
    logger.warning("%s; trying again in %.1f seconds", failure, pause)
