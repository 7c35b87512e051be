"""A Hugging Face hub on loopback, for the real client: what `huggingface_hub` asks for when it reads and pushes files.

    with Hub() as hub:
        hub.add("dataset", "owner/name", {"README.md": b"..."})
        hub.use(monkeypatch, tmp_path)   # in this process; hub.environment(...) is for another

Repositories have one branch, ``main``, with all its commits. Pushed files arrive within the commit, as the hub takes
small ones. What is asked is in ``hub.seen``; ``hub.fail`` answers the next requests with statuses of the test's choice,
0 by closing the connection in the middle of the answer; ``hub.slow`` is how many seconds each answer takes.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}


def blob(data: bytes) -> str:
    """The git id of a file's content, which the hub gives as its ETag."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repository:
    """The files at each commit, the newest last; ``private`` wants the hub's token."""

    private: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    def commit(self, files: dict[str, bytes]) -> str:
        said = json.dumps([len(self.commits), {name: blob(data) for name, data in sorted(files.items())}])
        sha = hashlib.sha1(said.encode()).hexdigest()
        self.commits.append((sha, files))
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        return next((c for c in self.commits if c[0] == revision), None)


class Hub:
    """The server; ``address`` is what HF_ENDPOINT names."""

    token = "hf_of_the_double"

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.seen: list[tuple[str, str]] = []
        """method and path of every request"""
        self.authorizations: list[str | None] = []
        self.fail: list[int] = []
        """statuses of the next answers"""
        self.slow = 0.0
        self._closed = threading.Event()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def add(self, kind: str, name: str, files: dict[str, bytes], private: bool = False) -> str:
        """A new commit with exactly these files; gives its hash."""
        return self.repositories.setdefault((kind, name), Repository(private)).commit(files)

    def files(self, kind: str, name: str) -> dict[str, bytes]:
        """What is in a repository now."""
        return self.repositories[kind, name].commits[-1][1]

    def use(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        """Have the client in this process, which read its settings when it was imported, ask this hub."""
        constants = pytest.importorskip("huggingface_hub.constants")
        for name, value in self.environment(cache).items():
            monkeypatch.setenv(name, value)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, self.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", self.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))

    def environment(self, cache: Path) -> dict[str, str]:
        """What another process needs to ask this hub."""
        return {"HF_ENDPOINT": self.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = self._parts()
        if self._refused():
            return
        if parts[:1] == ["api"] and len(parts) >= 4 and parts[1] in KINDS:
            self._api(KINDS[parts[1]], f"{parts[2]}/{parts[3]}", parts[4:])
        elif "resolve" in parts:
            self._resolve(parts)
        else:
            self._error(404, "EntryNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = self._parts()
        if self._refused():
            return
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._error(401, "")
        elif parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            kind, name = asked.get("type") or "model", f"{asked.get('organization') or 'me'}/{asked['name']}"
            if (kind, name) in self.hub.repositories:
                self._json({"error": "You already created this repo", "url": f"{self.hub.address}/{name}"}, 409)
                return
            self.hub.add(kind, name, {".gitattributes": b""}, private=asked.get("visibility") == "private")
            self._json({"url": f"{self.hub.address}/{'' if kind == 'model' else kind + 's/'}{name}", "name": name})
        elif parts == ["api", "validate-yaml"]:
            header = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            wrong = [] if isinstance(header, dict) else [{"message": "the header is no mapping"}]
            self._json({"errors": wrong, "warnings": []}, 400 if wrong else 200)
        elif parts[4:5] == ["preupload"]:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif parts[4:5] == ["commit"]:
            self._commit(KINDS[parts[1]], f"{parts[2]}/{parts[3]}", [json.loads(line) for line in body.splitlines()])
        else:
            self._error(404, "EntryNotFound")

    def _api(self, kind: str, name: str, rest: list[str]) -> None:
        repository = self._repository(kind, name)
        if repository is None:
            return
        found = repository.at(rest[1] if len(rest) > 1 else "main")
        if found is None:
            self._error(404, "RevisionNotFound")
            return
        sha, files = found
        if rest[:1] == ["tree"]:
            below = "".join(f"{part}/" for part in rest[2:])
            listed = [
                {"type": "file", "path": path, "size": len(data), "oid": blob(data)}
                for path, data in sorted(files.items())
                if path.startswith(below)
            ]
            self._json(listed)
        else:
            siblings = [{"rfilename": path} for path in sorted(files)]
            self._json(
                {
                    "_id": sha[:24],
                    "id": name,
                    "sha": sha,
                    "private": repository.private,
                    "siblings": siblings,
                    "tags": [],
                }
            )

    def _resolve(self, parts: list[str]) -> None:
        kind = KINDS[parts.pop(0)] if parts[0] in KINDS else "model"
        repository = self._repository(kind, "/".join(parts[:2]))
        if repository is None:
            return
        found = repository.at(parts[3])
        if found is None:
            self._error(404, "RevisionNotFound")
            return
        sha, files = found
        data = files.get("/".join(parts[4:]))
        if data is None:
            self._error(404, "EntryNotFound", {"X-Repo-Commit": sha})
            return
        headers = {"ETag": f'"{blob(data)}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        if asked:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._send(data[start:], 206, headers)
        else:
            self._send(data, 200, headers)

    def _commit(self, kind: str, name: str, lines: list[dict[str, Any]]) -> None:
        repository = self._repository(kind, name)
        if repository is None:
            return
        files = dict(repository.commits[-1][1])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                files.pop(value["path"], None)
        sha = repository.commit(files)
        self._json(
            {
                "success": True,
                "commitOid": sha,
                "commitUrl": f"{self.hub.address}/{name}/commit/{sha}",
                "hookOutput": "",
            }
        )

    def _repository(self, kind: str, name: str) -> Repository | None:
        """The repository, if it is there and the caller may see it; otherwise it has been answered."""
        found = self.hub.repositories.get((kind, name))
        if found is None or (found.private and self.headers.get("Authorization") != f"Bearer {self.hub.token}"):
            self._error(401, "RepoNotFound")  # the hub does not tell strangers which repositories there are
            return None
        return found

    def _parts(self) -> list[str]:
        self.hub.seen.append((self.command, self.path))
        self.hub.authorizations.append(self.headers.get("Authorization"))
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def _refused(self) -> bool:
        if self.hub.slow:
            self.hub._closed.wait(self.hub.slow)
        if not self.hub.fail:
            return False
        status = self.hub.fail.pop(0)
        if status:
            self._error(status, "")
        else:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"{")
            self.close_connection = True
        return True

    def _error(self, status: int, code: str, more: dict[str, str] | None = None) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        self._send(b'{"error": "no"}', status, {**headers, **(more or {})})

    def _json(self, data: Any, status: int = 200) -> None:
        self._send(json.dumps(data).encode(), status, {"Content-Type": "application/json"})

    def _send(self, data: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass
