"""A recording hop between the gateway and an upstream: every byte passes unchanged, and what the
upstream was asked and which session ids it gave out can be read by the tests.
"""
import asyncio
import dataclasses
import re
import threading
import urllib.parse

SESSION_ID = re.compile(rb"\r\nmcp-session-id:[ \t]*([^\r\n]+)\r\n", re.I)


@dataclasses.dataclass
class Request:
    method: str
    target: str
    headers: list[tuple[str, str]]  # names in lower case, in the order of the wire
    body: bytes

    def values(self, name: str) -> list[str]:
        return [v for k, v in self.headers if k == name]


class RequestReader:
    """Cuts the HTTP/1.1 bytes of one connection into requests."""

    def __init__(self, found) -> None:
        self.buffer, self.found = b"", found

    def feed(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = self.buffer[:end].decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ")
            headers = [(k.lower(), v.strip()) for k, _, v in (line.partition(":") for line in lines)]
            fields = dict(headers)
            if "chunked" in fields.get("transfer-encoding", ""):
                taken = self._chunked(end + 4)
            else:
                size = int(fields.get("content-length", "0"))
                taken = (self.buffer[end + 4:end + 4 + size], end + 4 + size) if len(self.buffer) >= end + 4 + size else None
            if taken is None:
                return
            body, used = taken
            self.buffer = self.buffer[used:]
            self.found(Request(method, target, headers, body))

    def _chunked(self, at: int):
        body = b""
        while (eol := self.buffer.find(b"\r\n", at)) >= 0:
            size = int(self.buffer[at:eol].split(b";")[0], 16)
            at = eol + 2 + size + 2
            if len(self.buffer) < at:
                return None
            body += self.buffer[eol + 2:eol + 2 + size]
            if size == 0:
                return body, at
        return None


class Tap:
    """Listens on a free port of 127.0.0.1 and relays to `upstream`; runs in a thread of its own."""

    def __init__(self, upstream: str = "") -> None:
        self.toward(upstream)
        self.requests: list[Request] = []
        self.sent: list[bytearray] = []  # per connection, everything that went to the upstream
        self.session_ids: list[str] = []  # as the upstream gave them out

    def toward(self, upstream: str) -> None:
        """For an upstream that has to know the tap's address before it starts."""
        self.upstream = urllib.parse.urlsplit(upstream)

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = self._await(asyncio.start_server(self._connection, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *exc) -> None:
        self._await(self._close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def _await(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    async def _close(self) -> None:
        self.server.close()
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader, writer) -> None:
        sent = bytearray()
        self.sent.append(sent)
        requests = RequestReader(self.requests.append)

        def up(data: bytes) -> None:
            sent.extend(data)
            requests.feed(data)

        tail = b""

        def down(data: bytes) -> None:
            nonlocal tail
            seen = tail + data
            for found in SESSION_ID.finditer(seen):
                if found.end() > len(tail):
                    self.session_ids.append(found.group(1).decode())
            tail = seen[-512:]

        other = None
        try:
            up_reader, other = await asyncio.open_connection(self.upstream.hostname, self.upstream.port)
            ways = [asyncio.ensure_future(pump(reader, other, up)), asyncio.ensure_future(pump(up_reader, writer, down))]
            try:
                # One side that goes away ends the other: that is how a client cancels.
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, other):
                if end is not None:
                    end.close()

    def leaks(self, secrets: list[str]) -> list[str]:
        """What an upstream was sent that it must never see."""
        found = [f"the secret {s!r}" for s in secrets if any(s.encode() in sent for sent in list(self.sent))]
        return found + [f"the header {name}" for name in ("x-litellm-api-key", "cookie")
                        if any(r.values(name) for r in list(self.requests))]


async def pump(reader, writer, note) -> None:
    while data := await reader.read(65536):
        note(data)
        writer.write(data)
        await writer.drain()
