#!/usr/bin/env python3
"""Tells how fresh a copy of a database is: the page that bailiwick's `replicas` read.

One runs beside each copy. Where its database is the leader, it writes the time into a row every few seconds. Everywhere
it reads that row from its own copy. The row alone survives both an idle leader and a cut link: a leader without writes
still writes it, and a copy whose link is cut keeps the last one that arrived.

    page.py postgres --dsn "host=/run/postgresql dbname=kb user=bailiwick" --listen 127.0.0.1:8110
    page.py qdrant --url http://127.0.0.1:6333 --collection docs --leader --listen 127.0.0.1:8110

GET /replica answers {"applied_at": …, "now": …, "leader": …}, and 503 if the database can't be asked. It needs
Python 3.9 and nothing else; for Postgres `psql` too.
"""

import argparse
import json
import os
import subprocess
import threading
import time
import urllib.request
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# How long the database may take to answer, in seconds.
PATIENCE = 3
# The id of the point that holds the time in Qdrant. No other point of the collection may have it.
POINT = 2**63 - 1


class Postgres:
    """A database with the table `bailiwick_heartbeat`. Who is the leader is asked each time, so a promotion shows."""

    WRITE = (
        "CREATE TABLE IF NOT EXISTS bailiwick_heartbeat (id int PRIMARY KEY, at timestamptz NOT NULL);"
        "INSERT INTO bailiwick_heartbeat VALUES (1, clock_timestamp())"
        " ON CONFLICT (id) DO UPDATE SET at = excluded.at"
    )
    READ = (
        "SELECT json_build_object('applied_at', (SELECT at FROM bailiwick_heartbeat WHERE id = 1),"
        " 'now', clock_timestamp(), 'leader', NOT pg_is_in_recovery())"
    )

    def __init__(self, dsn):
        self.dsn = dsn

    def beat(self):
        if self.ask("SELECT pg_is_in_recovery()") == "f":
            self.ask(self.WRITE)

    def read(self):
        return json.loads(self.ask(self.READ))

    def ask(self, statement):
        command = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"]
        environment = {**os.environ, "PGCONNECT_TIMEOUT": str(PATIENCE), "PGTZ": "UTC"}
        done = subprocess.run(
            [*command, "--command", statement, "--dbname", self.dsn],
            capture_output=True, check=True, env=environment, text=True, timeout=PATIENCE,
        )
        return done.stdout.strip()


class Qdrant:
    """A collection with a point for the time. Qdrant doesn't know which region leads, so the command line says it."""

    def __init__(self, url, collection, is_leader):
        self.points = f"{url.rstrip('/')}/collections/{collection}/points"
        self.collection = f"{url.rstrip('/')}/collections/{collection}"
        self.is_leader = is_leader

    def beat(self):
        if not self.is_leader:
            return
        vectors = self.ask("GET", self.collection)["result"]["config"]["params"]["vectors"]
        # One unnamed vector, or several by name. The point is found by its id alone.
        unit = lambda size: [1.0] + [0.0] * (size - 1)
        vector = unit(vectors["size"]) if "size" in vectors else {n: unit(v["size"]) for n, v in vectors.items()}
        point = {"id": POINT, "vector": vector, "payload": {"bailiwick_heartbeat": now()}}
        self.ask("PUT", f"{self.points}?wait=true", {"points": [point]})

    def read(self):
        payload = self.ask("GET", f"{self.points}/{POINT}")["result"]["payload"]
        return {"applied_at": payload["bailiwick_heartbeat"], "now": now(), "leader": self.is_leader}

    def ask(self, method, url, body=None):
        headers = {"content-type": "application/json"}
        if "QDRANT_API_KEY" in os.environ:
            headers["api-key"] = os.environ["QDRANT_API_KEY"]
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)


def now():
    return datetime.now(timezone.utc).isoformat()


def beat_for_ever(store, every):
    while True:
        try:
            store.beat()
        except Exception as error:  # the database may be away for a while
            print(f"no heartbeat: {type(error).__name__}", flush=True)
        time.sleep(every)


def page_of(store, version):
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/replica":
                return self.reply(404, {"error": "ask for /replica"})
            try:
                answer = store.read()
            except Exception as error:  # what the database says may name things; its kind is enough
                return self.reply(503, {"error": type(error).__name__})
            self.reply(200, {**answer, "version": version} if version else answer)

        def reply(self, status, answer):
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Page


def main():
    parser = argparse.ArgumentParser(description="Tells how fresh a copy of a database is.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--listen", default="127.0.0.1:8110", metavar="HOST:PORT", help="port 0 takes a free one")
    common.add_argument("--every", type=float, default=2, metavar="SECONDS", help="how often the time is written")
    common.add_argument("--version", help="told as \"version\", such as the name of the embedding model")
    stores = parser.add_subparsers(dest="store", required=True)
    postgres = stores.add_parser("postgres", parents=[common])
    postgres.add_argument("--dsn", required=True, help="how psql connects to the copy in this region")
    qdrant = stores.add_parser("qdrant", parents=[common])
    qdrant.add_argument("--url", required=True, help="the API of the copy in this region")
    qdrant.add_argument("--collection", required=True)
    qdrant.add_argument("--leader", action="store_true", help="this region writes the time")
    given = parser.parse_args()
    if given.store == "postgres":
        store = Postgres(given.dsn)
    else:
        store = Qdrant(given.url, given.collection, given.leader)
    host, port = given.listen.rsplit(":", 1)
    server = ThreadingHTTPServer((host.strip("[]"), int(port)), page_of(store, given.version))
    print(f"listening on {server.server_address[0]}:{server.server_address[1]}", flush=True)
    threading.Thread(target=beat_for_ever, args=(store, given.every), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
