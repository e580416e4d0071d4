"""Serves what it was asked, and headers that would harm whoever looks at it, were they passed on."""

import http.server
import json
import os

HOSTILE = b"""<!doctype html><head><title>Sign in</title></head><body><h1>Sign in to Airflow</h1><pre></pre><script>
const own = location.href.replace(/hostile.*/, ""), told = {};
async function tried(name, act) {
  try { told[name] = `done: ${await act()}`; } catch { told[name] = "refused"; }
}
function loaded(url) {
  return new Promise((resolve, reject) => Object.assign(new Image(), {onload: resolve, onerror: reject, src: url}));
}
(async () => {
  await tried("own", async () => (await fetch(own + "x")).status);
  await tried("airflow", async () => (await fetch("/api/v2/version", {mode: "no-cors"})).type);
  await tried("ticket", async () => (await fetch("/practicus/pages/other/", {mode: "no-cors"})).type);
  await tried("icon", () => loaded("/practicus/ui/static/icon.svg"));
  await tried("script", () => import("/practicus/ui/static/list.js"));
  await tried("window", () => open(own).location);
  await tried("top", () => { top.location = "/auth/login"; });
  await tried("cookie", () => document.cookie);
  await tried("url", () => history.replaceState(null, "", "/auth/login"));
  parent.postMessage({practicusAt: "../../auth/login"}, "*");
  document.querySelector("pre").textContent = JSON.stringify(told);
})();
</script></body>"""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/hostile":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(HOSTILE)))
            self.end_headers()
            self.wfile.write(HOSTILE)
            return
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
