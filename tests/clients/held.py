"""An answer that waits in the middle for the test to let it go on."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from rejoinder.conformance.upstreams.script import Action, Answer, Asked, Pause


@dataclass(frozen=True, slots=True)
class Held:
    """`after` pieces are sent, and the others once it is released. The opening is a piece, and so is a whole JSON."""

    answer: Answer
    after: int = 0
    _released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        self._released.set()

    def actions(self, request: Asked) -> Iterator[Action]:
        sent = 0
        for action in self.answer.actions(request):
            if isinstance(action, bytes):
                while sent == self.after and not self._released.is_set():
                    yield Pause(0.005)
                sent += 1
            yield action
