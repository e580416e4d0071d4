// A replica's log, as it is written.

import { element, fill, space } from "./elements.js";

const KEPT = 5000; // lines
const PROGRESS = /^(?:\[rank \d+\] )?\[progress +(\d+)%\] ?(.*)$/; // what practicus_runtime.progress() writes

/** Shows the log of one replica at a time, with the progress that it tells of. */
export function logPanel(panel, urlOf) {
  const [heading, state] = [element("h2"), element("span", { class: "muted" })];
  const lines = element("pre", { tabindex: "0", "aria-label": "Log" });
  const follow = element("input", { type: "checkbox", checked: true, change: toEnd });
  const [bar, told] = [element("progress", { max: 100 }), element("span")];
  const progress = element("div", { class: "progress" }, bar, told);
  let [source, shown, waiting] = [null, null, []];

  function toEnd() {
    if (follow.checked) lines.scrollTop = lines.scrollHeight;
  }

  function draw() {
    lines.append(...waiting.slice(-KEPT).map((text) => `${text}\n`));
    waiting = [];
    while (lines.childNodes.length > KEPT) lines.firstChild.remove();
    toEnd();
  }

  function take(text) {
    if (!waiting.length) requestAnimationFrame(draw); // many lines at once are drawn once
    waiting.push(text);
    if (waiting.length > 2 * KEPT) waiting = waiting.slice(-KEPT);
    const found = PROGRESS.exec(text);
    if (!found) return;
    progress.hidden = false;
    bar.value = Number(found[1]);
    told.textContent = `${found[1]} % ${found[2]}`;
  }

  function open(replica) {
    source?.close();
    if (!replica) return;
    const following = element("label", {}, follow, " follow");
    fill(panel, element("header", {}, heading, state, space(), following), progress, lines);
    shown = replica;
    waiting = [];
    progress.hidden = true;
    heading.textContent = `Log of ${replica}`;
    state.textContent = "connecting";
    fill(lines);
    source = new EventSource(urlOf(replica));
    const own = source;
    source.onopen = () => (state.textContent = "live");
    source.onmessage = (event) => take(JSON.parse(event.data));
    source.onerror = () => {
      state.textContent = own.readyState === EventSource.CLOSED ? "cannot be read" : "cut off, trying again";
    };
    source.addEventListener("end", (event) => {
      own.close();
      state.textContent = JSON.parse(event.data) || "ended";
    });
  }
  return { open, replica: () => shown };
}
