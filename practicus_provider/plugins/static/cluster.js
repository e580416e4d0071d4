// One cluster: its facts, its replicas, the log of one of them, and its deletion.

import { age, badge, bytes, cores, element, fill, muted, notice, outward, price, space, taskLinks } from "./elements.js";
import { logPanel } from "./log.js";
import { ask, explained, keep } from "./requests.js";

/** @param {URLSearchParams} asked which one; with "logs", its log is what is wanted. */
export function showCluster(main, asked) {
  const [dag, connection, cluster, namespace] = ["dag_id", "connection", "cluster", "namespace"].map(
    (name) => asked.get(name) ?? "",
  );
  const path = `api/clusters/${[dag, connection, cluster].map(encodeURIComponent).join("/")}`;
  const query = (more = {}) => new URLSearchParams({ ...(namespace && { namespace }), ...more });
  const [title, status, facts] = [element("div", { class: "title" }), element("div"), element("div")];
  const [replicas, panel] = [element("div", { class: "replicas" }), element("section")];
  const log = logPanel(panel, (replica) => `${path}/logs/${encodeURIComponent(replica)}?${query({ uid: data.uid })}`);
  let data;
  const way = [element("a", { href: "page" }, "Clusters"), " › ", outward(`dags/${encodeURIComponent(dag)}`, dag)];
  fill(main, element("nav", {}, way), title, status, facts, replicas, panel);
  fill(title, element("h1", {}, cluster));

  function open(replica) {
    log.open(replica);
    mark();
  }

  function mark() {
    for (const button of replicas.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", button.dataset.replica === log.replica());
    }
  }

  function show(found) {
    const another = data?.uid !== found.uid;
    data = found;
    const pages = Object.entries(data.links).map(([label, url]) => outward(url, label, { tab: true, class: "button" }));
    const remove = data.may.delete && element("button", { class: "danger", click: askFirst }, "Delete");
    fill(title, element("h1", {}, cluster), badge(data.state), space(), pages, remove);
    fill(status);
    fill(facts, factsOf(data), verdictOf(data));
    fill(replicas, gridsOf(data, open), reasonsOf(data.replicas));
    if (!data.may.logs) fill(panel, muted("You may not read the task logs of this DAG."));
    else if (another) open(first(data));
    else mark();
    if (asked.has("logs")) panel.scrollIntoView();
    asked.delete("logs");
  }

  function fail(error) {
    fill(status, explained(error));
    if (error.status !== 404) return;
    for (const gone of [facts, replicas]) fill(gone);
    fill(title, element("h1", {}, cluster)); // what was read of the log stays
  }

  function askFirst() {
    const cancel = element("button", { click: () => dialog.close() }, "Cancel");
    const remove = element("button", { class: "danger", click: removed }, "Delete");
    const words = `All that runs on it ends. The task ${data.task_id} fails then, or is tried again if it has retries.`;
    const dialog = element(
      "dialog",
      { close: () => dialog.remove() },
      element("h2", {}, `Delete cluster ${cluster}?`),
      element("p", {}, words),
      element("footer", {}, cancel, remove),
    );
    async function removed() {
      dialog.close();
      try {
        await ask(`${path}?${query({ uid: data.uid })}`, { method: "DELETE" });
        fill(status, notice("info", "The cluster is being deleted"));
      } catch (error) {
        fill(status, explained(error));
      }
    }
    main.append(dialog);
    dialog.showModal();
  }
  keep(`${path}?${query()}`, show, fail);
}

/** The replica whose log is the job's. */
function first({ coordinator, replicas }) {
  return (replicas.find((replica) => replica.role === coordinator) ?? replicas[0])?.name;
}

function factsOf(data) {
  const { dag, run, task } = taskLinks(data);
  const facts = {
    DAG: dag,
    Run: run,
    Task: [task, data.try_number > 1 && `, try ${data.try_number}`],
    Adapter: data.adapter,
    Connection: data.connection + (data.namespace ? `, namespace ${data.namespace}` : ""),
    Age: age(data.created_at),
    CPU: data.measured ? cores(data.cpu) : "not measured",
    Memory: data.measured ? bytes(data.memory) : "not measured",
    ...(data.cost && { Cost: price(data.cost) }),
  };
  const fact = ([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value));
  return element("dl", {}, Object.entries(facts).map(fact));
}

function verdictOf({ verdict, state }) {
  return verdict && notice(state === "succeeded" ? "info" : "error", verdict.reason, verdict.message, verdict.advice);
}

function gridsOf(data, open) {
  const roles = grouped(data.replicas, (replica) => replica.role);
  return [...roles].map(([role, replicas]) => {
    const buttons = replicas.map((replica) => square(replica, data.may.logs, () => open(replica.name)));
    return element("div", { class: "ranks" }, element("span", { class: "role" }, role), buttons);
  });
}

function square(replica, enabled, click) {
  const used = replica.cpu == null ? [] : [cores(replica.cpu), bytes(replica.memory)];
  const words = [`${replica.name}: ${replica.state}`, replica.detail, ...used].filter(Boolean).join(", ");
  const named = { title: words, "aria-label": words, "data-replica": replica.name };
  return element("button", { class: `square ${replica.state}`, disabled: !enabled, click, ...named }, replica.index);
}

/** Why replicas are not as they should be, each reason once. */
function reasonsOf(replicas) {
  const bad = replicas.filter((replica) => why(replica));
  return [...grouped(bad, why)].map(([reason, those]) => {
    const names = those.slice(0, 3).map((replica) => replica.name);
    const more = those.length > 3 ? ` and ${those.length - 3} more` : "";
    return muted(`${names.join(", ")}${more}: ${reason}`);
  });
}

function why({ state, detail, exit_code: code, signal }) {
  if (detail) return `${state}, ${detail}`;
  if (state !== "failed") return "";
  return signal ? `killed by ${signal}` : `exit code ${code}`;
}

function grouped(items, keyOf) {
  const groups = new Map();
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
  return groups;
}
