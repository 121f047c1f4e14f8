"""What a tier has sent and no broker has acknowledged yet: it is settled, sent again, or kept until somebody helps."""

from __future__ import annotations

from dataclasses import replace

from branchy.core import tier_events as ev

KEPT_S = 5.0
"""How long a dead letter that the brokers do not take waits until it is tried again."""


class Outbox:
    """Answers and dead letters under way, one a token; each is settled once it is acknowledged.

    Attributes:
        body_bytes: bytes of the bodies that wait here to become dead letters.
    """

    def __init__(self) -> None:
        self._sent: dict[ev.Token, ev.SendAnswer | ev.DeadLetter] = {}
        self._kept: dict[ev.Token, float] = {}  # dead letters that no broker takes: when each is due, the first first
        self.body_bytes = 0

    def __len__(self) -> int:
        """How many are not acknowledged."""
        return len(self._sent)

    @property
    def due(self) -> float | None:
        """When to call `again` next; None while nothing is kept."""
        return next(iter(self._kept.values()), None)

    def put(self, token: ev.Token, effect: ev.SendAnswer | ev.DeadLetter) -> None:
        """Begin to wait for the report of a send."""
        self._sent[token] = effect
        if isinstance(effect, ev.DeadLetter):
            self.body_bytes += effect.body_bytes

    def acknowledged(self, token: ev.Token) -> list[ev.Effect]:
        """A broker has it."""
        return [ev.Settle(token)] if self._let_go(token) else []

    def failed(self, event: ev.SendFailed, now: float) -> list[ev.Effect]:
        """Send again what may still arrive; an answer that cannot, or not in time for anybody, is settled.

        Else a single reply partition that takes nothing would hold up everybody's requests in the end.

        A dead letter is all that is left of a message, so nothing but its acknowledgement settles it.
        """
        effect = self._sent.get(event.token)
        if effect is None:
            return []
        if not isinstance(effect, ev.DeadLetter):
            given_up = event.permanent or effect.wanted_until <= now
            return self.acknowledged(event.token) if given_up else [effect]
        if not event.permanent:
            return [effect]
        if event.too_large and not effect.bare:
            bare = self._sent[event.token] = replace(effect, bare=True)
            return [bare]
        self._kept[event.token] = now + KEPT_S  # a right or a topic is missing, which somebody may mend
        return []

    def again(self, now: float) -> list[ev.Effect]:
        """Kept dead letters that are due."""
        tokens = [token for token, due in self._kept.items() if due <= now]
        for token in tokens:
            del self._kept[token]
        return [self._sent[token] for token in tokens]

    def taken_away(self, token: ev.Token, lost: bool) -> None:
        """Its partition is another's, who writes the dead letter that is kept here; all is, where it was `lost`."""
        if lost or token in self._kept:
            self._let_go(token)
            self._kept.pop(token, None)

    def holds(self, token: ev.Token) -> bool:
        """Whether a token's report is still to come."""
        return token in self._sent

    def _let_go(self, token: ev.Token) -> bool:
        effect = self._sent.pop(token, None)
        if isinstance(effect, ev.DeadLetter):
            self.body_bytes -= effect.body_bytes
        return effect is not None
