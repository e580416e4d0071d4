"""A job's page that harms whoever passes it on: each path is an attack, which lasts until the other side has gone.

``/attacks`` is how many go on, and how many there were.
"""

import asyncio
import base64
import hashlib
import os

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What a WebSocket's server adds to the key that it is sent (RFC 6455, 4.2.2)."""
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
MANY = 4096
SLOW = 0.2
"""Seconds between two bytes of what drips."""

HTTP = {  # path -> what is answered, what is repeated after that (None: nothing more comes), seconds between
    "/fine": (OK + b"Content-Type: text/plain\r\nContent-Length: 4\r\n\r\nfine", b"", 0),
    "/silent": (b"", None, 0),
    "/interim": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * MANY, 0),
    "/headers": (OK, b"X: y\r\n" * MANY, 0),
    "/header": (OK + b"X: ", b"y" * MANY, 0),
    "/dripping-head": (OK + b"X: ", b"y", SLOW),
    "/dripping-body": (CHUNKED, b"1\r\nx\r\n", SLOW),
    "/endless-body": (CHUNKED, b"10000\r\n" + bytes(1 << 16) + b"\r\n", 0),
    "/chunks-of-a-byte": (CHUNKED, b"1\r\nx\r\n" * MANY, 0),
    "/huge-length": (OK + b"Content-Type: text/plain\r\nContent-Length: 1000000000000000000\r\n\r\nx", None, 0),
    "/huger-length": (OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nx", b"", 0),
    "/endless-chunk-size": (CHUNKED, b"0" * MANY, 0),
    "/endless-trailer": (CHUNKED + b"0\r\n", b"X: y\r\n" * MANY, 0),
    "/no-status": (b"HTTP/1.1 999 Whatever\r\nContent-Length: 0\r\n\r\n", b"", 0),
    "/no-http": (b"220 mail.example.com ESMTP\r\n\r\n", b"", 0),
    "/out": (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: ..\\..\\%2e./../auth/login\r\n\r\n", b"", 0),
    **{
        f"/status-{status}": (b"HTTP/1.1 %d\r\nContent-Length: 4\r\n\r\nfine" % status, b"", 0)
        for status in (203, 299, 418, 499, 599)
    },
    "/multipart": (OK + b"Content-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n", b"--b\r\n\r\nx\r\n", SLOW),
    "/refresh": (
        OK + b"Content-Type: text/plain\r\nContent-Length: 0\r\nRefresh: 0; url=https://example.com/\r\n"
        b"Link: <https://example.com/>; rel=preload\r\nAlt-Svc: h3=example.com\r\n\r\n",
        b"",
        0,
    ),
}
SOCKETS = {  # path -> what is sent once the WebSocket is open, what is repeated after that
    "/fine-socket": (b"\x81\x04fine", b""),
    "/empty-continuations": (b"\x01\x00", b"\x00\x00" * MANY),
    "/frames-of-a-byte": (b"\x01\x01x", b"\x00\x01x" * MANY),
    "/pings": (b"", b"\x89\x00" * MANY),
    "/pongs": (b"", b"\x8a\x00" * MANY),
    "/empty-messages": (b"", b"\x82\x00" * MANY),
    "/large-messages": (b"", b"\x82\x7f" + (1 << 20).to_bytes(8, "big") + os.urandom(1 << 20)),
    "/too-large-message": (b"\x82\x7f" + (1 << 62).to_bytes(8, "big"), bytes(MANY)),
    "/malformed-deflate": (b"\xc1\x04\xff\xff\xff\xff", b""),
    "/no-frame": (b"\xff\xff\xff\xff", b""),
}


going_on = begun = 0


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection."""
    try:
        while request := await reader.readuntil(b"\r\n\r\n"):
            lines = request.decode("latin-1").split("\r\n")
            path = lines[0].split()[1].partition("?")[0]
            if path == "/attacks":
                said = f"{going_on} {begun}".encode()
                writer.write(OK + b"Content-Length: " + str(len(said)).encode() + b"\r\n\r\n" + said)
            elif path in SOCKETS:
                key = next(line.partition(": ")[2] for line in lines if line.lower().startswith("sec-websocket-key"))
                accept = base64.b64encode(hashlib.sha1(key.encode() + MAGIC).digest())
                upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                begin, again = SOCKETS[path]
                await attack(reader, writer, upgrade + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + begin, again)
            else:
                begin, again, pause = HTTP.get(path, HTTP["/fine"])
                await attack(reader, writer, begin, again, pause)
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def attack(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begin: bytes, again: bytes | None, pause: float = 0
) -> None:
    """Send it, and what is to be repeated for as long as it is taken."""
    global going_on, begun
    going_on, begun = going_on + 1, begun + 1
    try:
        writer.write(begin)
        await writer.drain()
        if again is None:
            await reader.read()
        while again and not reader.at_eof():
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(pause)
    finally:
        going_on -= 1


async def main() -> None:
    async with await asyncio.start_server(serve, "127.0.0.1", int(os.environ["PAGE"])) as server:
        print("look now", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
