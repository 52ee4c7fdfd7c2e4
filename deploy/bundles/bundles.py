"""Follows a bundle of bailiwick: docs/bundles.md. Takes nodes, a name and a token; holds the files of one version.

    bundle = Bundle(["https://ns1.example.com:8053", "https://ns2.example.com:8053"], "prompts", token)
    bundle.refresh()                                       # raises if no node gives it
    threading.Thread(target=bundle.follow, daemon=True).start()
    system = bundle.files["chat/system.md"].decode()       # read `files` once for each request

Needs Python 3.9 and nothing else. As a program it prints each version and its files:

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


class Bundle:
    def __init__(self, nodes, name, token=None, region=None):
        self.nodes, self.name, self.token, self.region = list(nodes), name, token, region
        self.version = None
        self.files = {}  # path to bytes; replaced as a whole

    def refresh(self, wait=0):
        """Gets another version if there is one, from the first node that gives it. Whether there was one."""
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
        body = self._get(node, f"/v1/bundles/{self.name}", question, self.version, wait)
        if body is None:
            return False
        manifest = json.loads(body)
        files = {}
        for file in manifest["files"]:
            path = f"/v1/bundles/{self.name}/{urllib.parse.quote(file['path'])}"
            content = self._get(node, path, {"version": manifest["version"]}, None, 0)
            if hashlib.sha256(content).hexdigest() != file["sha256"]:
                raise ValueError(f"{file['path']} doesn't have its digest")
            files[file["path"]] = content
        lines = "".join(f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n" for path in sorted(files))
        if hashlib.sha256(lines.encode()).hexdigest() != manifest["version"]:
            raise ValueError("the files aren't those of the version")
        is_other = manifest["version"] != self.version
        self.version, self.files = manifest["version"], files
        return is_other

    def _get(self, node, path, question, version, wait):
        query = f"?{urllib.parse.urlencode(question)}" if question else ""
        request = urllib.request.Request(f"{node}{path}{query}")
        if self.token:
            request.add_header("authorization", f"Bearer {self.token}")
        if version:
            request.add_header("if-none-match", f'"{version}"')
        try:
            with urllib.request.urlopen(request, timeout=wait + 10) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 304:
                return None
            raise


def main():
    node, name = sys.argv[1:3]
    token = open(sys.argv[3], encoding="ascii").readline().strip() if len(sys.argv) > 3 else None
    bundle = Bundle([node], name, token)

    def show(bundle):
        files = {path: content.decode(errors="replace") for path, content in sorted(bundle.files.items())}
        print(json.dumps({"version": bundle.version, "files": files}), flush=True)

    bundle.follow(show)


if __name__ == "__main__":
    main()
