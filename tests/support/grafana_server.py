"""An emulated Grafana: annotations and dashboards over its HTTP API, as its documentation has them."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "glsa_0123456789abcdef"


class GrafanaServer:
    """Keeps what it is given. Without the token every request is 401, as in Grafana."""

    def __init__(self, port: int = 0, *, token: str = "") -> None:
        self.annotations: dict[int, dict[str, Any]] = {}
        self.dashboards: dict[str, dict[str, Any]] = {}
        self.token = token
        grafana = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                size = int(self.headers["Content-Length"] or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                given = self.headers.get("Authorization", "")
                status, answer = (401, {"message": "Unauthorized"})
                if not grafana.token or given == f"Bearer {grafana.token}":
                    status, answer = grafana.answer(self.command, self.path, body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = _serve  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, method: str, target: str, body: Any) -> tuple[int, Any]:
        parts = urlsplit(target)
        if (method, parts.path) == ("GET", "/api/annotations"):
            wanted = set(parse_qs(parts.query).get("tags", []))
            found = [a for a in self.annotations.values() if wanted <= set(a["tags"])]
            return 200, found[: int(parse_qs(parts.query).get("limit", ["100"])[0])]
        if (method, parts.path) == ("POST", "/api/annotations"):
            if not body.get("text"):
                return 400, {"message": "Failed to save annotation"}
            number = len(self.annotations) + 1
            self.annotations[number] = {"id": number, "timeEnd": body["time"], **body}
            return 200, {"message": "Annotation added", "id": number}
        if method == "PATCH" and parts.path.startswith("/api/annotations/"):
            number = int(parts.path.rpartition("/")[2])
            if number not in self.annotations:
                return 404, {"message": "Could not find annotation to update"}
            self.annotations[number] |= body
            return 200, {"message": "Annotation patched"}
        if (method, parts.path) == ("POST", "/api/dashboards/db"):
            made = body["dashboard"]
            if made.get("id") is not None or not made.get("title"):
                return 400, {"message": "Dashboard title cannot be empty"}
            if made["uid"] in self.dashboards and not body.get("overwrite"):
                return 412, {
                    "message": "A dashboard with the same uid exists",
                    "status": "name-exists",
                }
            self.dashboards[made["uid"]] = body
            return 200, {"uid": made["uid"], "status": "success", "url": f"/d/{made['uid']}/x"}
        return 404, {"message": "Not found"}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
