"""The HTTP server of the desk: peers that are silent, slow or many cost nobody else an answer.

uvicorn alone counts connections, also those on which nobody asks anything, and refuses everyone once
there are so many. Here requests are counted, in all and by peer; of connections the ones that ask
nothing give way to new ones, and what a peer sends or takes too slowly ends.
"""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Iterator

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS_MAX = 512
REQUESTS_MAX = 128  # under way at one time; a live feed is one
REQUESTS_PER_PEER_MAX = 96  # of one address: also a proxy's, behind which all users are
REQUEST_SECONDS = 30.0  # from the connection, or a request's first byte, to its last
TAKING_SECONDS = 60.0  # a peer may take nothing of its answer so long
STOP_SECONDS = 3


class Requests:
    """An application whose requests under way are bounded; one too many is told to come again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._of_peer: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        peer = str((scope.get("client") or ("",))[0])
        if self._of_peer.total() >= REQUESTS_MAX:
            why = f"{REQUESTS_MAX} requests are being answered, which is the most at one time"
        elif self._of_peer[peer] >= REQUESTS_PER_PEER_MAX:
            why = f"{REQUESTS_PER_PEER_MAX} requests of yours are being answered, the most at one time"
        else:
            why = ""
        if why:
            refusal = PlainTextResponse(f"{why}; ask again soon", 503, {"Retry-After": "5"})
            await refusal(scope, receive, send)
            return
        self._of_peer[peer] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._of_peer[peer] -= 1
            if not self._of_peer[peer]:
                del self._of_peer[peer]


class Timer:
    """Ends a connection unless it is stopped in time."""

    def __init__(self, seconds: float, connection: H11Protocol) -> None:
        self._seconds = seconds
        self._connection = connection
        self._handle: asyncio.TimerHandle | None = None

    def go_on(self) -> None:
        """Start it, where it does not run."""
        if self._handle is None:
            abort = self._connection.transport.abort
            self._handle = self._connection.loop.call_later(self._seconds, abort)

    def stop(self) -> None:
        """Stop it."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Connection(H11Protocol):
    """One connection: times for what is to come and what is to be taken, and a turn to give way."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request; let another connection give way where there are too many."""
        super().connection_made(transport)
        self._asked = False
        self._since = self.loop.time()  # when it last began to wait for a request
        self._coming, self._taking = Timer(REQUEST_SECONDS, self), Timer(TAKING_SECONDS, self)
        self._coming.go_on()
        if len(self.connections) > CONNECTIONS_MAX:
            self._make_room()

    def _make_room(self) -> None:
        connections = [one for one in self.connections if isinstance(one, Connection)]
        left = [one for one in connections if not one.transport.is_closing()]
        if len(left) > CONNECTIONS_MAX:
            idle = [one for one in left if one.idle]
            # Those that never asked anything first, then the longest silent ones.
            min(idle, key=lambda one: (one._asked, one._since), default=self).transport.abort()

    @property
    def idle(self) -> bool:
        """Whether no request is being answered on it."""
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request, which has its time to come in whole."""
        super().data_received(data)
        if self.idle or self.cycle.more_body:
            self._coming.go_on()
        else:
            self._coming.stop()

    def on_response_complete(self) -> None:
        """Wait for the next request, as long as a connection is kept alive."""
        self._asked, self._since = True, self.loop.time()
        self._coming.stop()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The peer takes nothing: it has its time."""
        super().pause_writing()
        self._taking.go_on()

    def resume_writing(self) -> None:
        """It took something."""
        super().resume_writing()
        self._taking.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._coming.stop()
        self._taking.stop()
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """A server on a socket that we bound, whose signals are ours."""

    def __init__(self, app: ASGIApp, listening: socket.socket) -> None:
        config = uvicorn.Config(
            Requests(app),
            http=Connection,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        super().__init__(config)
        self._listening = listening

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the desk, which has two servers."""
        yield

    async def serve_socket(self) -> None:
        """Serve until `should_exit`."""
        await self.serve(sockets=[self._listening])
