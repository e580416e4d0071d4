// All clusters.

import { age, badge, bytes, cores, element, fill, muted, notice, price, taskLinks } from "./elements.js";
import { explained, keep } from "./requests.js";

const SQUARES = 96; // of a role

/** Title -> what a row has under it. */
const COLUMNS = {
  Cluster: (row) => element("a", { href: urlOf(row), class: "name" }, row.cluster),
  State: (row) => {
    const note = row.leaving ? " leaving" : row.released && " kept";
    return [badge(row.state), note && element("span", { class: "muted" }, note)];
  },
  Task: (row) => {
    const { dag, run, task } = taskLinks(row);
    return [element("div", {}, dag, " › ", task), element("div", { class: "small" }, run)];
  },
  Adapter: (row) => row.adapter,
  Replicas: (row) => Object.entries(row.replicas).map(([role, states]) => grid(role, states)),
  CPU: (row) => cores(row.cpu),
  Memory: (row) => bytes(row.memory),
  Cost: (row) => price(row.cost),
  Verdict: (row) => row.verdict && element("span", { title: row.verdict.message }, row.verdict.reason),
  Age: (row) => age(row.created_at),
  Connection: (row) => row.connection,
};
const OPTIONAL = { CPU: "cpu", Memory: "memory", Cost: "cost", Verdict: "verdict" }; // shown where some cluster has it
const SOUGHT = ["cluster", "dag_id", "run_id", "task_id", "adapter", "state", "connection"];

export function showList(main) {
  const [status, body] = [element("div"), element("div")];
  let data;
  const filter = element("input", { type: "search", placeholder: "Filter", "aria-label": "Filter", input: draw });
  fill(main, element("header", {}, element("h1", {}, "Clusters"), filter), status, body);
  fill(body, muted("Looking …"));

  function draw() {
    if (!data) return;
    const troubles = Object.entries(data.troubles);
    const advice = "Whoever may read connections is told why.";
    fill(status, troubles.map(([name, why]) => notice("error", `Connection ${name} cannot be reached`, why || advice)));
    const word = filter.value.toLowerCase();
    const fits = (row) => SOUGHT.some((name) => String(row[name]).toLowerCase().includes(word));
    const known = (title) => !(title in OPTIONAL) || data.clusters.some((row) => row[OPTIONAL[title]] != null);
    const titles = Object.keys(COLUMNS).filter(known);
    const unmeasured = data.unmeasured.join(", ");
    fill(
      body,
      table(titles, data.clusters.filter(fits)),
      unmeasured && muted(`CPU and memory are not measured: ${unmeasured}.`),
    );
  }

  function table(titles, rows) {
    if (!data.clusters.length) return muted("There is no cluster now. Each comes with a task, and goes with it.");
    if (!rows.length) return muted("No cluster fits the filter.");
    const head = titles.map((title) => element("th", { scope: "col" }, title));
    const lines = rows.map((row) => element("tr", {}, titles.map((title) => element("td", {}, COLUMNS[title](row)))));
    const made = element("table", {}, element("thead", {}, element("tr", {}, head)), element("tbody", {}, lines));
    return element("div", { class: "scroll" }, made);
  }

  function show(found) {
    data = found;
    draw();
  }
  keep("api/clusters", show, (error) => fill(status, explained(error)));
}

function urlOf(row) {
  const query = new URLSearchParams({ dag_id: row.dag_id, connection: row.connection, cluster: row.cluster });
  return `page?${query}`;
}

function grid(role, states) {
  const counts = new Map();
  for (const state of states) counts.set(state, (counts.get(state) ?? 0) + 1);
  const words = `${role}: ${[...counts].map(([state, count]) => `${count} ${state}`).join(", ")}`;
  const squares = states.slice(0, SQUARES).map((state, index) => {
    return element("i", { class: `square ${state}`, title: `${role}-${index}: ${state}` });
  });
  const rest = states.length > SQUARES && ` +${states.length - SQUARES}`;
  const name = element("span", { class: "role" }, role);
  return element("div", { class: "ranks", role: "img", "aria-label": words }, name, squares, rest);
}
