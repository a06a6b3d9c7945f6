"""An answer that waits in the middle to be let go on."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from rejoinder.conformance.upstreams.script import Action, Answer, Asked, Pause


@dataclass(frozen=True, slots=True)
class Held:
    """`after` pieces are sent, and the others once it is released. The opening is a piece, and so is a whole JSON.

    With `before` it is not the number that counts: it waits at the first piece that says this.
    """

    answer: Answer
    after: int = 0
    before: bytes = b""
    _released: threading.Event = field(default_factory=threading.Event)

    @property
    def is_released(self) -> bool:
        return self._released.is_set()

    def release(self) -> None:
        self._released.set()

    def actions(self, request: Asked) -> Iterator[Action]:
        sent = 0
        for action in self.answer.actions(request):
            if isinstance(action, bytes):
                waits = self.before in action if self.before else sent == self.after
                while waits and not self._released.is_set():
                    yield Pause(0.005)
                sent += 1
            yield action
