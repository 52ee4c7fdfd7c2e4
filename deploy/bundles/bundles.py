"""Follows a bundle of bailiwick: docs/bundles.md. Takes nodes, a name and a token; holds the files of one version, and
of a second one while a rollout brings that.

    bundle = Bundle(["https://ns1.example.com:8053", "https://ns2.example.com:8053"], "prompts", token)
    bundle.refresh()                                       # raises if no node gives it
    threading.Thread(target=bundle.follow, daemon=True).start()
    files, version = bundle.for_session(session)           # once for each request
    system = files["chat/system.md"].decode()
    headers["x-bailiwick-bundle"] = version                # tells the edge which prompts these are

Needs Python 3.9 and nothing else. As a program it prints each version and its files, and each step of a rollout:

    python3 bundles.py http://127.0.0.1:8053 prompts [TOKEN_FILE]
"""

import hashlib
import http.client
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

WAIT = 30  # seconds for which a node waits for another version, 60 at most
PAUSE = 5  # seconds after an answer of no use


def is_new(rollout, session, share):
    """Whether a session gets a rollout's new version, while `share` per cent do. It keeps it while the share grows."""
    point = int.from_bytes(hashlib.sha256(f"{rollout}/{session}".encode()).digest()[:4], "big")
    return point * 100 < share * 2**32


class Bundle:
    def __init__(self, nodes, name, token=None, region=None):
        self.nodes, self.name, self.token, self.region = list(nodes), name, token, region
        self._etag = None
        # The version, its files, and the rollout with its own: {"name", "version", "share", "region", "files"} or
        # None. Replaced as a whole.
        self._state = (None, {}, None)

    @property
    def version(self):
        return self._state[0]

    @property
    def files(self):
        """Path to bytes, of the version that sessions get outside of a rollout."""
        return self._state[1]

    @property
    def rollout(self):
        return self._state[2]

    def for_session(self, session):
        """The files for a session, and the value of the header x-bailiwick-bundle that names their version."""
        version, files, rollout = self._state
        if version is None:
            raise LookupError(f"bundle {self.name}: no version is here yet; call refresh() first")
        if rollout and is_new(rollout["name"], session, rollout["share"]):
            version, files = rollout["version"], rollout["files"]
        # What the region by whose share this was chosen serves, and nothing else, is judged.
        by = f";region={rollout['region']}" if rollout else ""
        return files, f"{self.name}@{version}{by}"

    def refresh(self, wait=0):
        """Gets what is new, from the first node that gives it: another version, or a step of a rollout. Whether there
        was anything."""
        failures = []
        for node in list(self.nodes):
            try:
                return self._refresh(node, wait)
            except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
                failures.append(f"{node}: {error}")
                self.nodes.append(self.nodes.pop(0))  # the next node is asked first
        raise ConnectionError("; ".join(failures))

    def follow(self, on_change=None):
        """Follows for ever. While no node is of use, what is there stays."""
        while True:
            begun = time.monotonic()
            try:
                is_other = self.refresh(WAIT)
            except ConnectionError as error:
                print(f"bundle {self.name}: {error}", file=sys.stderr)
                time.sleep(PAUSE)
                continue
            if is_other and on_change:
                on_change(self)
            if not is_other and time.monotonic() - begun < 1:
                time.sleep(PAUSE)  # a node that doesn't wait, as it goes down

    def _refresh(self, node, wait):
        question = {"wait": f"{wait}s"} if wait else {}
        if self.region:
            question["region"] = self.region
        body, etag = self._get(node, f"/v1/bundles/{self.name}", question, self._etag, wait)
        if body is None:
            return False
        manifest = json.loads(body)
        files, rollout = self._files(node, manifest), manifest.get("rollout")
        if rollout:
            body, _ = self._get(node, f"/v1/bundles/{self.name}", {"version": rollout["version"]}, None, 0)
            new = self._files(node, {**json.loads(body), "version": rollout["version"]})
            rollout = {**{key: rollout[key] for key in ("name", "version", "share", "region")}, "files": new}
        state = (manifest["version"], files, rollout)
        is_other = state != self._state
        self._state, self._etag = state, etag
        return is_other

    def _files(self, node, manifest):
        """The files of a manifest's version: those that are here, or from a node."""
        version, files, rollout = self._state
        for held, its in ((version, files), (rollout["version"], rollout["files"]) if rollout else (None, None)):
            if held == manifest["version"]:
                return its
        files = {}
        for file in manifest["files"]:
            path = f"/v1/bundles/{self.name}/{urllib.parse.quote(file['path'])}"
            content, _ = self._get(node, path, {"version": manifest["version"]}, None, 0)
            if hashlib.sha256(content).hexdigest() != file["sha256"]:
                raise ValueError(f"{file['path']} doesn't have its digest")
            files[file["path"]] = content
        lines = "".join(f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n" for path in sorted(files))
        if hashlib.sha256(lines.encode()).hexdigest() != manifest["version"]:
            raise ValueError("the files aren't those of the version")
        return files

    def _get(self, node, path, question, etag, wait):
        """The body and the entity tag of an answer; no body if the tag is the same."""
        query = f"?{urllib.parse.urlencode(question)}" if question else ""
        request = urllib.request.Request(f"{node}{path}{query}")
        if self.token:
            request.add_header("authorization", f"Bearer {self.token}")
        if etag:
            request.add_header("if-none-match", etag)
        try:
            with urllib.request.urlopen(request, timeout=wait + 10) as answer:
                return answer.read(), answer.headers["etag"]
        except urllib.error.HTTPError as error:
            if error.code == 304:
                return None, etag
            raise


def main():
    node, name = sys.argv[1:3]
    token = open(sys.argv[3], encoding="ascii").readline().strip() if len(sys.argv) > 3 else None
    bundle = Bundle([node], name, token)

    def text(files):
        return {path: content.decode(errors="replace") for path, content in sorted(files.items())}

    def show(bundle):
        shown = {"version": bundle.version, "files": text(bundle.files)}
        if bundle.rollout:
            shown["rollout"] = {**bundle.rollout, "files": text(bundle.rollout["files"])}
        print(json.dumps(shown), flush=True)

    bundle.follow(show)


if __name__ == "__main__":
    main()
