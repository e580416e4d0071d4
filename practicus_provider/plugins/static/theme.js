// Dark or light, as Airflow is, which keeps the choice under "theme". It is loaded before anything is drawn.
const system = matchMedia("(prefers-color-scheme: dark)");

function follow() {
  const chosen = localStorage.getItem("theme");
  const dark = chosen === "dark" || (chosen !== "light" && system.matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

follow();
addEventListener("storage", follow);
system.addEventListener("change", follow);
