"""Serves what it was asked, and headers that would harm whoever looks at it, were they passed on."""

import http.server
import json
import os


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"path": self.path, "headers": {name.lower(): self.headers[name] for name in self.headers}})
        self.send_response(302 if self.path == "/elsewhere" else 200)
        self.send_header("Location", "/found?a=b")
        self.send_header("Set-Cookie", "_token=mine; Path=/")
        self.send_header("Clear-Site-Data", '"*"')
        self.send_header("Content-Security-Policy", "sandbox allow-scripts allow-same-origin")
        self.send_header("Strict-Transport-Security", "max-age=1000000")
        self.send_header("Service-Worker-Allowed", "/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PAGE"])), Handler)
print("look now", flush=True)
server.serve_forever()
