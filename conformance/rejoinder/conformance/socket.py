"""A WebSocket to the server that is judged."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING

import aiohttp
import msgspec

from rejoinder.conformance.errors import NoAnswer
from rejoinder.conformance.transcript import Exchange

if TYPE_CHECKING:
    from rejoinder.conformance.server import Json


class Socket:
    """Frames in both directions; each one sent begins an exchange of the transcript.

    `binary` are the frames that came and were none of text, `pongs` what came back for pings.
    """

    def __init__(
        self,
        connection: aiohttp.ClientWebSocketResponse,
        model: str,
        transcript: list[Exchange],
        *,
        timeout: float | None,
    ) -> None:
        self.binary: list[bytes] = []
        self.pongs: list[bytes] = []
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
        await self._sent(self._connection.send_str(frame.decode()))

    async def ping(self, payload: bytes) -> None:
        """A ping of the protocol; `pongs` has its answer once that was received. Raises as `send` does."""
        await self._sent(self._connection.ping(payload))

    async def _sent(self, sending: Awaitable[None]) -> None:
        try:
            await sending
        except ConnectionError:
            raise NoAnswer("an open connection", f"a closed one (close code {self.close_code})") from None

    async def receive(self) -> bytes:
        """The next frame, of text or not. Raises NoAnswer when none comes."""
        while True:
            try:
                message = await self._connection.receive(self._timeout)
            except TimeoutError:
                raise NoAnswer("a frame in time", "none") from None
            match message.type:
                case aiohttp.WSMsgType.TEXT:
                    return self._received(str(message.data).encode())
                case aiohttp.WSMsgType.BINARY:
                    self.binary.append(bytes(message.data))
                    return self._received(self.binary[-1])
                case aiohttp.WSMsgType.PING:
                    await self._connection.pong(message.data)
                case aiohttp.WSMsgType.PONG:
                    self.pongs.append(bytes(message.data))
                case _:
                    self._exchange.answered = f"closed with {self.close_code}"
                    raise NoAnswer("a frame", f"the end of the connection (close code {self.close_code})")

    def _received(self, frame: bytes) -> bytes:
        self._exchange.answered = "frames"
        self._exchange.pieces.append(frame + b"\n")
        return frame

    @property
    def close_code(self) -> int | None:
        """With what the server closed it, once `receive` has come to the end."""
        return self._connection.close_code
