"""A WebSocket to the server that is judged."""

from typing import TYPE_CHECKING

import aiohttp
import msgspec

from rejoinder.conformance.errors import Broken, NoAnswer
from rejoinder.conformance.transcript import Exchange

if TYPE_CHECKING:
    from rejoinder.conformance.server import Json


class Socket:
    """Frames of text in both directions; each one sent begins an exchange of the transcript."""

    def __init__(
        self,
        connection: aiohttp.ClientWebSocketResponse,
        model: str,
        transcript: list[Exchange],
        *,
        timeout: float | None,
    ) -> None:
        self._connection = connection
        self._model = model
        self._transcript = transcript
        self._timeout = timeout
        self._exchange = Exchange("WebSocket", b"")

    async def create(self, **fields: "Json") -> None:
        """Ask for a response, with the model that is judged unless `fields` name another."""
        await self.send(msgspec.json.encode({"type": "response.create", "model": self._model, **fields}))

    async def send(self, frame: bytes) -> None:
        """Any frame. Raises NoAnswer when the connection is closed."""
        self._exchange = Exchange("WebSocket, a frame", frame, "nothing")
        self._transcript.append(self._exchange)
        try:
            await self._connection.send_str(frame.decode())
        except ConnectionError:
            raise NoAnswer("an open connection", f"a closed one (close code {self.close_code})") from None

    async def receive(self) -> bytes:
        """The next frame. Raises NoAnswer when none comes, and Broken when it is none of text."""
        try:
            message = await self._connection.receive(self._timeout)
        except TimeoutError:
            raise NoAnswer("a frame in time", "none") from None
        if message.type is aiohttp.WSMsgType.TEXT:
            frame = str(message.data).encode()
            self._exchange.answered = "frames"
            self._exchange.pieces.append(frame + b"\n")
            return frame
        if message.type is aiohttp.WSMsgType.BINARY:
            raise Broken("a frame of text", "a binary frame")
        self._exchange.answered = f"closed with {self.close_code}"
        raise NoAnswer("a frame", f"the end of the connection (close code {self.close_code})")

    @property
    def close_code(self) -> int | None:
        """With what the server closed it, once `receive` has come to the end."""
        return self._connection.close_code
