"""One party's tunnel, as a process of its own: it ends with the session, and survives nothing.

It listens at the party's public address and connects to the players before it. When all have the same program and the
same session, it opens the local ends that the engine connects to, and carries every connection of the engine to the
peer's tunnel, which connects to the peer's engine (see routes.py). Its settings come as JSON in a file; what happens is
said on standard output, one JSON object a line:

    {"event": "agreed", "session": "5f..."}     the engine may start
    {"event": "failed", "text": ..., "where": ..., "todo": ...}
    {"event": "left", "player": 1}              that player has ended well
    {"event": "lost", "player": 1}              its tunnel is gone without a farewell

SIGTERM says that the engine has ended well: what is still on its way is sent, then the farewells.

Anybody can connect to a public port. A connection that is not a player's within HANDSHAKE_SECONDS is closed, and when
too many are waiting, the one that waits longest is: a player needs a few round trips, whatever others do.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import signal
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpcc.runtime.parties import tunnel_failures as failures
from mpcc.runtime.parties.agreement import Disagreement, Meeting
from mpcc.runtime.parties.channel import (
    HANDSHAKE_SECONDS,
    Channel,
    Piped,
    WrongCertificate,
    admit,
    connect_local,
    dial,
    listen_local,
    make_context,
)
from mpcc.runtime.parties.link import (
    Bye,
    Confirm,
    Ended,
    Event,
    Hello,
    Open,
    Ready,
    Reason,
    Refuse,
    RemoteProtocolError,
    Side,
    State,
)
from mpcc.runtime.parties.routes import split_address
from mpcc.runtime.parties.tunnel_failures import Failure

PENDING = 64  # connections that have not shown who they are
STREAMS = 256  # of one player at a time
RETRY_SECONDS = 0.2
ENGINE_SECONDS = 60.0  # in which an engine has to listen once a peer's connects to it
LEAVE_SECONDS = 10.0  # to send what is on its way
_ORPHAN_SECONDS = 1.0  # how often it is looked whether mpcc is still there
TURNED_AWAY = 5  # times in a row, until it is no accident that a certificate is not accepted
_OTHER_CONFIRMED = {Side.DIALLER: State.ACCEPTER_CONFIRMED, Side.ACCEPTER: State.DIALLER_CONFIRMED}


@dataclass(frozen=True)
class Settings:
    """What a tunnel has to know; tuples are by player. `parts` name what is compared (see agreement.py)."""

    player: int
    roles: tuple[str, ...]
    addresses: tuple[str, ...]  # host:port, public
    listen: str  # the host at which this one listens
    certificates: tuple[str, ...]  # PEM
    fingerprints: tuple[str, ...]  # SHA-256 in hexadecimal
    certificate: str  # paths of the player's own
    key: str
    parts: Mapping[str, str]
    engine: str
    ends: Mapping[int, str]
    wait_seconds: float


class Tunnel:
    """The parts of a tunnel: the public port, the meetings with the others, the engine's connections."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.own = settings, settings.player
        self.players = len(settings.roles)
        self.meeting = Meeting(self.own, self.players, settings.parts, os.urandom(32))
        self.meetings: dict[int, Channel] = {}
        self.streams: Counter[int] = Counter()
        self.joined: set[Piped] = set()
        self.pending: dict[asyncio.Task[None], None] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.turned_away: Counter[str] = Counter()
        self.agreed = asyncio.Event()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        others = [p for p in range(self.players) if p != self.own]
        pem = [text.encode("ascii") for text in settings.certificates]
        own = Path(settings.certificate), Path(settings.key)
        self.accepting = make_context(Side.ACCEPTER, *own, [pem[p] for p in others])
        self.dialling = {p: make_context(Side.DIALLER, *own, [pem[p]]) for p in others}
        self.pinned = {settings.fingerprints[p]: p for p in others}

    async def run(self, leave: asyncio.Event) -> None:
        """Until `leave` is set, and what was on its way is sent. Failure before the session is agreed on."""
        with self._public() as public:
            self._spawn(self._accept(public))
            for peer in range(self.own):
                self._spawn(self._visit(peer))
            await self._agree()
            ends = [await listen_local(address, self._end_for(peer)) for peer, address in self.settings.ends.items()]
            say(event="agreed", session=(self.meeting.session or b"").hex())
            await leave.wait()
            for end in ends:
                end.close()
            await self._leave()

    # ** the public port **
    def _public(self) -> socket.socket:
        port = split_address(self.settings.addresses[self.own])[1]
        public = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        public.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            public.bind((self.settings.listen, port))
            public.listen(PENDING)
        except OSError as error:
            public.close()
            raise failures.taken(self.settings.addresses[self.own], error.strerror or str(error)) from None
        public.setblocking(False)
        return public

    async def _accept(self, public: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(public)
            except OSError:  # the guest is gone already, or there is no descriptor left
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if len(self.pending) >= PENDING:
                next(iter(self.pending)).cancel()
                self.turned_away["too many"] += 1
            guest = self._spawn(self._guest(connection))
            self.pending[guest] = None
            guest.add_done_callback(lambda task: self.pending.pop(task, None))

    async def _guest(self, connection: socket.socket) -> None:
        """A connection that came: a player's is served, any other one is closed."""
        channel = Channel(Side.ACCEPTER, self.own, self.pinned)
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await admit(connection, self.accepting, channel)
                first = await channel.hear()
        except (OSError, RemoteProtocolError, WrongCertificate, TimeoutError) as error:
            self.turned_away["certificate" if isinstance(error, (ssl.SSLError, WrongCertificate)) else "other"] += 1
            return channel.abort()
        except asyncio.CancelledError:
            channel.abort()
            raise
        if (task := asyncio.current_task()) is not None:
            self.pending.pop(task, None)
        if isinstance(first, Open):
            return await self._serve_stream(channel, first)
        if isinstance(first, Hello):
            return await self._converse(channel, first)
        return channel.abort()

    # ** meetings **
    async def _visit(self, peer: int) -> None:
        """Meet a player, again and again until it is there, or is certainly somebody else."""
        times_strange, role, address = 0, self.settings.roles[peer], self.settings.addresses[peer]
        while not self.agreed.is_set() and not self.failed.done():
            channel = Channel(Side.DIALLER, self.own, self._only(peer))
            try:
                await dial(address, self.dialling[peer], channel)
                channel.say(Hello(self.meeting.nonces[self.own], self.settings.parts))
                if isinstance(first := await channel.hear(), Ended):
                    raise WrongCertificate("the connection was closed without a word")
                times_strange = 0
                await self._converse(channel, first)
            except WrongCertificate as error:
                channel.abort()
                if (times_strange := times_strange + 1) >= TURNED_AWAY:
                    self._fail(failures.strange(role, address, str(error)))
            except RemoteProtocolError as error:
                self._fail(failures.broken(role, str(error)))
            except (OSError, TimeoutError):
                channel.abort()
                times_strange = 0
            await asyncio.sleep(RETRY_SECONDS)

    def _only(self, peer: int) -> Mapping[str, int]:
        """The certificate of the player that is dialled: another player's will not do at its address."""
        return {mark: player for mark, player in self.pinned.items() if player == peer}

    async def _converse(self, channel: Channel, event: Event) -> None:
        """A meeting from its first event to its end."""
        try:
            while self._met(channel, event):
                event = await channel.hear()
        except RemoteProtocolError as error:
            self._gone(channel, failures.broken(self.settings.roles[channel.peer], str(error)))
        except WrongCertificate:
            self._gone(channel, None)
        finally:
            channel.close()

    def _met(self, channel: Channel, event: Event) -> bool:
        """Act on what a player says; whether it may say more."""
        peer = channel.peer
        try:
            match event:
                case Hello(nonce, parts):
                    if channel.side is Side.ACCEPTER:
                        channel.say(Hello(self.meeting.nonces[self.own], self.settings.parts))
                    self.meetings[peer] = channel
                    self.meeting.greet(peer, nonce, parts)
                case Confirm(session):
                    self.meeting.confirm(peer, session)
                case Refuse(reason):
                    self._fail(failures.refused(self.settings.roles[peer], reason))
                    return False
                case Bye():
                    say(event="left", player=peer)
                    return False
                case _:
                    self._gone(channel, None)
                    return False
        except Disagreement as error:
            self._fail(failures.different(self.settings.roles[error.player], error.names))
            return False
        self._advance()
        return True

    def _advance(self) -> None:
        """Confirm the session to everybody who has not heard it, as soon as it is known."""
        if (session := self.meeting.session) is None:
            return
        for channel in self.meetings.values():
            if channel.state in (State.GREETED, _OTHER_CONFIRMED[channel.side]):
                channel.say(Confirm(session))
        if self.meeting.agreed:
            self.agreed.set()

    def _gone(self, channel: Channel, failure: Failure | None) -> None:
        """A player's meeting has ended without a farewell; before the session stands it may come back."""
        if self.meetings.get(channel.peer) is not channel:
            return
        del self.meetings[channel.peer]
        if self.agreed.is_set():
            say(event="lost", player=channel.peer)
        elif failure is not None:
            self._fail(failure)

    async def _agree(self) -> None:
        """Wait until all have agreed. Failure if somebody does not, or is not there in time."""
        waiting = asyncio.ensure_future(self.agreed.wait())
        await asyncio.wait(
            (waiting, self.failed), timeout=self.settings.wait_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()
        if self.failed.done():
            self.failed.result()
        if not self.agreed.is_set():
            silent = [p for p in range(self.players) if p != self.own and p not in self.meeting.confirmed]
            roles = [self.settings.roles[p] for p in self.meeting.missing or silent]
            raise failures.absent(roles, self.settings.wait_seconds, self.turned_away)

    # ** streams **
    def _end_for(self, peer: int) -> Callable[[], Piped]:
        """What asyncio makes for each connection of the engine to a peer."""
        tunnel = self

        class End(Piped):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                self.pause(True)
                tunnel._spawn(tunnel._open_stream(self, peer))

        return End

    async def _open_stream(self, end: Piped, peer: int) -> None:
        """Carry a connection of the engine to a peer; it is closed if the peer does not take it."""
        channel = Channel(Side.DIALLER, self.own, self._only(peer))
        answer: Event = Ended(False)
        try:
            async with asyncio.timeout(ENGINE_SECONDS + HANDSHAKE_SECONDS):
                await dial(self.settings.addresses[peer], self.dialling[peer], channel)
                channel.say(Open(self.meeting.session or b""))
                answer = await channel.hear()
        except (OSError, RemoteProtocolError, WrongCertificate, TimeoutError):
            pass
        if not isinstance(answer, Ready):
            channel.close()
            return end.close()
        return await self._carry(channel, end)

    async def _serve_stream(self, channel: Channel, first: Open) -> None:
        """Carry a peer's stream to this party's engine."""
        if not hmac.compare_digest(first.session, self.meeting.session or b""):
            return self._refuse(channel, Reason.SESSION)
        if self.streams[channel.peer] >= STREAMS:
            return self._refuse(channel, Reason.BUSY)
        self.streams[channel.peer] += 1
        try:
            await self.agreed.wait()
            end = await self._engine()
            if end is None or channel.gone.is_set():
                return self._refuse(channel, Reason.ENGINE)
            channel.say(Ready())
            return await self._carry(channel, end)
        finally:
            self.streams[channel.peer] -= 1

    async def _engine(self) -> Piped | None:
        """A connection to the engine, which may still be starting; it is not read yet."""
        deadline = asyncio.get_running_loop().time() + ENGINE_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            end = Piped()
            try:
                await connect_local(self.settings.engine, end)
            except OSError:
                await asyncio.sleep(RETRY_SECONDS / 10)
                continue
            end.pause(True)
            return end
        return None

    async def _carry(self, channel: Channel, end: Piped) -> None:
        self.joined.add(channel)
        channel.join(end)
        end.pause(False)
        try:
            await channel.gone.wait()
            await end.gone.wait()
        finally:
            self.joined.discard(channel)

    def _refuse(self, channel: Channel, reason: Reason) -> None:
        if channel.state is State.ASKED:
            channel.say(Refuse(reason))
        channel.close()

    # ** the end **
    async def _leave(self) -> None:
        """Send what is on its way, then say farewell."""
        waiting = [asyncio.ensure_future(channel.gone.wait()) for channel in self.joined]
        if waiting:
            await asyncio.wait(waiting, timeout=LEAVE_SECONDS)
        for channel in self.meetings.values():
            if channel.state is State.MET:
                channel.say(Bye())
            channel.close()
        for channel in list(self.meetings.values()):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(channel.gone.wait(), 1.0)

    def _fail(self, failure: Failure) -> None:
        """The session will not be: tell everybody who can still hear it."""
        for channel in self.meetings.values():
            if channel.state in (State.GREETED, State.DIALLER_CONFIRMED, State.ACCEPTER_CONFIRMED):
                channel.say(Refuse(failure.reason))
                channel.close()
        if not self.failed.done():
            self.failed.set_exception(failure)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


# ** the process **
def say(**what: object) -> None:
    """A line for the runtime."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def settings_from(text: str) -> Settings:
    """The settings that `dataclasses.asdict` and JSON made of some."""
    table: dict[str, Any] = json.loads(text)
    table["ends"] = {int(peer): address for peer, address in table["ends"].items()}
    for name in ("roles", "addresses", "certificates", "fingerprints"):
        table[name] = tuple(table[name])
    return Settings(**table)


def _noted(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What strangers do to a connection is no news; anything else is a bug, and goes to the log."""
    error = context.get("exception")
    if error is not None and not isinstance(error, OSError):
        sys.stderr.write(f"{type(error).__name__}: {error}\n")


async def serve(settings: Settings) -> None:
    """Run a tunnel until SIGTERM. Failure if the session does not come about."""
    leave, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, leave.set)
    loop.set_exception_handler(_noted)
    watching = asyncio.create_task(_end_with_parent(os.getppid()))
    try:
        await Tunnel(settings).run(leave)
    finally:
        watching.cancel()


async def _end_with_parent(parent: int) -> None:
    """End at once, as a lost party does, when mpcc is gone and its watchdog with it: nobody else would end this."""
    while os.getppid() == parent:
        await asyncio.sleep(_ORPHAN_SECONDS)
    os._exit(1)


def main() -> None:
    """Run with the file of settings as the argument; exit code 1 after a failure, which is said."""
    try:
        asyncio.run(serve(settings_from(Path(sys.argv[1]).read_text("utf-8"))))
    except Failure as failure:
        say(event="failed", text=failure.text, where=failure.where, todo=failure.todo)
        sys.exit(1)
    except (OSError, ValueError) as error:
        say(event="failed", text=f"the tunnel cannot be set up: {error}", where="", todo="")
        sys.exit(1)


if __name__ == "__main__":
    main()
