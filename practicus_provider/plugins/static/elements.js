// What pages are made of. What a user wrote becomes text nodes and attributes' values, never markup.

const airflow = new URL("../../", document.baseURI);

/** An element; attributes that are functions listen, and those that are false or absent are left out. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...present(children));
  return made;
}

/** Have an element hold these, instead of what it held. */
export const fill = (held, ...children) => held.replaceChildren(...present(children));

const present = (children) => children.flat(2).filter((child) => child != null && child !== false);

/** A link to another page of Airflow's. Its frame may not lead its window there, but the window's own links may. */
export function outward(path, text, { tab = false, ...attributes } = {}) {
  const url = new URL(path, airflow).href;
  function click(event) {
    if (parent === self) return;
    event.preventDefault();
    const link = parent.document.createElement("a");
    link.href = url;
    link.rel = "noopener";
    if (tab || event.ctrlKey || event.metaKey || event.shiftKey) link.target = "_blank";
    link.click();
  }
  return element("a", { href: url, target: tab ? "_blank" : "_top", rel: "noopener", click, ...attributes }, text);
}

/** DAG, run and task of a cluster, as links to Airflow's pages. */
export function taskLinks(row) {
  const [dag, run, task] = [row.dag_id, row.run_id, row.task_id].map(encodeURIComponent);
  const mapped = row.map_index >= 0;
  const path = mapped ? `${task}/mapped/${row.map_index}` : task;
  const name = mapped ? `${row.task_id} [${row.map_index}]` : row.task_id;
  return {
    dag: outward(`dags/${dag}`, row.dag_id),
    run: outward(`dags/${dag}/runs/${run}`, row.run_id),
    task: outward(`dags/${dag}/runs/${run}/tasks/${path}`, name),
  };
}

export const muted = (...words) => element("p", { class: "muted" }, ...words);
export const badge = (state) => element("span", { class: `badge ${state}` }, state);
export const space = () => element("span", { class: "space" });

export function notice(kind, title, ...words) {
  const texts = words.filter(Boolean).map((text) => element("p", {}, text));
  return element("div", { class: `notice ${kind}`, role: "status" }, element("strong", {}, title), texts);
}

// ---- numbers

let skew = 0; // milliseconds by which the server's clock is ahead of ours

export function serverSays(date) {
  skew = date - Date.now() || 0;
}

/** Time since then, which goes on. */
export function age(since) {
  return element("time", { "data-since": since, title: new Date(since * 1000).toLocaleString() }, elapsed(since));
}

setInterval(() => {
  for (const shown of document.querySelectorAll("time[data-since]")) {
    shown.textContent = elapsed(Number(shown.dataset.since));
  }
}, 1000);

function elapsed(since) {
  const seconds = Math.max(0, Math.floor((Date.now() + skew) / 1000 - since));
  const [minutes, hours] = [Math.floor(seconds / 60), Math.floor(seconds / 3600)];
  if (hours >= 24) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  if (hours) return `${hours} h ${minutes % 60} min`;
  return minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

export const cores = (cpu) => (cpu == null ? "–" : `${cpu.toFixed(2)} cores`);

export function bytes(memory) {
  if (memory == null) return "–";
  return memory < 2 ** 30 ? `${Math.round(memory / 2 ** 20)} MiB` : `${(memory / 2 ** 30).toFixed(1)} GiB`;
}

export const price = (cost) => (cost == null ? "–" : `${cost.total.toFixed(2)} ${cost.currency}`);
