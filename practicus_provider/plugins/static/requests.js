// What is asked of the server.

import { notice, serverSays } from "./elements.js";

const REFRESH = 3000; // milliseconds

/** JSON, or an error with the status and the server's words. */
export async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { Accept: "application/json" } });
  serverSays(Date.parse(answer.headers.get("Date")));
  const data = answer.status === 204 ? null : await answer.json().catch(() => ({}));
  if (answer.ok) return data;
  throw Object.assign(new Error(data.detail ?? answer.statusText), { status: answer.status });
}

/** Show what is there, again and again while somebody looks; what does not change stays, as does the focus in it. */
export async function keep(path, show, fail) {
  for (let last; ; await new Promise((done) => setTimeout(done, REFRESH))) {
    if (document.visibilityState === "hidden") continue;
    try {
      const data = await ask(path);
      const text = JSON.stringify(data);
      if (text !== last) show(data);
      last = text;
    } catch (error) {
      last = null;
      fail(error);
    }
  }
}

export function explained(error) {
  if (error.status === 401) return notice("error", "You are no longer logged in", "Reload the page.");
  if (error.status === 403) return notice("error", "You may not do this", error.message);
  if (error.status === 404) return notice("warning", "The cluster is gone", error.message);
  if (error.status) return notice("error", "The cluster cannot be reached", error.message);
  return notice("error", "Airflow does not answer", "This page goes on when it does.");
}
