"""DNS over QUIC by aioquic: takes PORT and a query in hex (id 0, no length), tries what RFC 9250 says of servers, and
prints a line of JSON for each case: its name and what was seen. Called by quic.rs."""

import asyncio
import json
import ssl
import sys
from contextlib import asynccontextmanager

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

PORT, QUERY = int(sys.argv[1]), bytes.fromhex(sys.argv[2])
LIMIT = 10  # seconds, of everything that is waited for


def framed(message):
    return len(message).to_bytes(2, "big") + message


def with_option(code):
    """The query with an OPT record that holds one empty option."""
    option = code.to_bytes(2, "big") + b"\0\0"
    opt = b"\0" + (41).to_bytes(2, "big") + (1232).to_bytes(2, "big") + b"\0\0\0\0" + len(option).to_bytes(2, "big")
    question = QUERY[12 : QUERY.index(b"\0", 12) + 5]
    return QUERY[:10] + b"\0\1" + question + opt + option


class Client(QuicConnectionProtocol):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.answers, self.done, self.closed = {}, {}, asyncio.get_running_loop().create_future()

    def quic_event_received(self, event):
        if isinstance(event, events.StreamDataReceived):
            self.answers[event.stream_id] = self.answers.get(event.stream_id, b"") + event.data
            if event.end_stream:
                self.end(event.stream_id, "finished")
        elif isinstance(event, events.StreamReset):
            self.end(event.stream_id, f"reset {event.error_code}")
        elif isinstance(event, events.ConnectionTerminated):
            if not self.closed.done():
                self.closed.set_result(event.error_code)
            for stream in list(self.done):
                self.end(stream, "lost")

    def end(self, stream, how):
        if not self.done[stream].done():
            self.done[stream].set_result(how)

    def send(self, data, finish=True):
        """Opens a stream and sends on it."""
        stream = self._quic.get_next_available_stream_id()
        self.done[stream] = asyncio.get_running_loop().create_future()
        self._quic.send_stream_data(stream, data, end_stream=finish)
        return stream

    async def told(self, stream):
        """The answer's octets, or how else the stream ended."""
        self.transmit()
        how = await asyncio.wait_for(self.done[stream], LIMIT)
        return self.answers.get(stream, b"") if how == "finished" else how

    async def code(self):
        """The code with which the server closes."""
        self.transmit()
        return await asyncio.wait_for(asyncio.shield(self.closed), LIMIT)


def is_answer(told):
    """One message of the right length, id 0, a response, NOERROR, with an answer."""
    if isinstance(told, str) or len(told) < 14 or int.from_bytes(told[:2], "big") != len(told) - 2:
        return False
    message = told[2:]
    return message[:2] == b"\0\0" and message[2] & 0x80 and message[3] & 15 == 0 and message[7] > 0


def settings():
    return QuicConfiguration(
        is_client=True,
        alpn_protocols=["doq"],
        verify_mode=ssl.CERT_NONE,
        server_name="localhost",
        idle_timeout=2 * LIMIT,
    )


@asynccontextmanager
async def connected(**more):
    async with connect("127.0.0.1", PORT, configuration=settings(), create_protocol=Client, **more) as client:
        yield client


async def closing_code(data, finish=True):
    async with connected() as client:
        client.send(data, finish)
        return await client.code()


async def parallel(streams):
    """How many of so many streams, opened at once, are answered."""
    async with connected() as client:
        opened = [client.send(framed(QUERY)) for _ in range(streams)]
        return sum(map(is_answer, [await client.told(stream) for stream in opened]))


async def one_by_one(queries):
    async with connected() as client:
        return sum([is_answer(await client.told(client.send(framed(QUERY)))) for _ in range(queries)])


async def in_pieces():
    """An answer to a query that comes octet by octet, while other streams are answered."""
    async with connected() as client:
        data = framed(QUERY)
        slow = client.send(data[:1], finish=False)
        for at in range(1, len(data)):
            client._quic.send_stream_data(slow, data[at : at + 1], end_stream=False)
            if at % 10 == 0 and not is_answer(await client.told(client.send(data))):
                return False
            client.transmit()
        before_fin = is_answer(await client.told(slow))
        client._quic.send_stream_data(slow, b"", end_stream=True)
        return before_fin and is_answer(await client.told(client.send(data)))


async def late_second():
    """A second query that comes after the first one's answer."""
    async with connected() as client:
        stream = client.send(framed(QUERY), finish=False)
        await client.told(stream)
        client._quic.send_stream_data(stream, framed(QUERY), end_stream=True)
        return await client.code()


async def cancelled():
    """A stream given up half-way is no matter to the others."""
    async with connected() as client:
        given_up = client.send(framed(QUERY)[:9], finish=False)
        client.transmit()
        client._quic.reset_stream(given_up, 3)
        told = await client.told(given_up)
        return [told, is_answer(await client.told(client.send(framed(QUERY))))]


async def response_sent():
    """A response in place of a query is never answered."""
    async with connected() as client:
        told = await client.told(client.send(framed(QUERY[:2] + bytes([QUERY[2] | 0x80]) + QUERY[3:])))
        return [told, is_answer(await client.told(client.send(framed(QUERY))))]


async def stalled_handshakes():
    """Clients that begin a handshake and fall silent hold up nobody."""
    loop, silent = asyncio.get_running_loop(), []
    for _ in range(8):
        connection = QuicConnection(configuration=settings())
        connection.connect(("127.0.0.1", PORT), now=loop.time())
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=("127.0.0.1", PORT))
        for datagram, _ in connection.datagrams_to_send(now=loop.time()):
            transport.sendto(datagram)
        silent.append(transport)
    began = loop.time()
    answered = await one_by_one(1)
    for transport in silent:
        transport.close()
    return [answered, loop.time() - began < 3]


async def early_data():
    """How much early data a session ticket allows."""
    tickets = []
    async with connected(session_ticket_handler=tickets.append) as client:
        await client.told(client.send(framed(QUERY)))
        await client.ping()
    return [len(tickets) > 0, max((ticket.max_early_data_size or 0) for ticket in tickets)]


async def beyond_the_limit(limit):
    """The code that the one connection more than a client may have is told."""
    async with connected():
        others = [connected() for _ in range(limit - 1)]
        for other in others:
            await other.__aenter__()
        try:
            async with connected(wait_connected=False) as beyond:
                return await beyond.code()
        finally:
            for other in others:
                await other.__aexit__(None, None, None)


async def answer_with(option):
    async with connected() as client:
        return is_answer(await client.told(client.send(framed(with_option(option)))))


CASES = {
    "answers": lambda: {
        "parallel": parallel(250),
        "one_by_one": one_by_one(350),
        "in_pieces": in_pieces(),
        "cancelled": cancelled(),
        "response_sent": response_sent(),
        "stalled_handshakes": stalled_handshakes(),
        "early_data": early_data(),
        "padding": answer_with(12),
    },
    "errors": lambda: {
        "id": closing_code(framed(b"\0\1" + QUERY[2:])),
        "two_at_once": closing_code(framed(QUERY) * 2),
        "late_second": late_second(),
        "keepalive": closing_code(framed(with_option(11))),
        "ends_early": closing_code(framed(QUERY)[:-1]),
        "no_length": closing_code(b"\0"),
        "nothing": closing_code(b""),
        "no_header": closing_code(framed(QUERY[:11])),
        "empty": closing_code(framed(b"")),
        "too_much": closing_code_of_many(),
    },
    "idle": lambda: {"idle": closing_code(framed(QUERY)), "no_fin": closing_code(framed(QUERY), finish=False)},
    "limit": lambda: {"limit": beyond_the_limit(3)},
}


async def closing_code_of_many():
    """Long queries that never end, on many streams: more than a connection may hold."""
    async with connected() as client:
        for _ in range(20):
            client.send(b"\xff\xff" + bytes(20_000), finish=False)
        return await client.code()


async def main():
    for name, case in CASES[sys.argv[3]]().items():
        try:
            told = await asyncio.wait_for(case, 2 * LIMIT)
        except Exception as error:  # a case that fails is told like any other
            told = repr(error)
        told = [one if not isinstance(one, bytes) else one.hex() for one in told] if isinstance(told, list) else told
        print(json.dumps({name: told}), flush=True)


asyncio.run(main())
