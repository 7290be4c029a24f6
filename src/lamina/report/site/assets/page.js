/* The page of one architecture: its figures, its parts in a setting, and its drawing. */
(function () {
  "use strict";

  const { words, figures } = Lamina;
  const at = (id) => document.getElementById(id);

  async function show() {
    const [profile] = await Lamina.known([document.body.dataset.name]);
    if (!profile) return;
    const [cost] = figures.show([profile], Lamina.setting());
    const parts = cost.breakdown();
    const heads = ["path", "mechanism", "parameters", "weights", "state", "FLOPs, prompt", "FLOPs/token"];
    const size = (bytes) => (bytes ? words.size(bytes) : "–"), count = (n) => (n ? words.count(n) : "–");
    const rows = parts.map((part) => [words.element("code", {}, part.path), part.mechanism.replaceAll("_", " "),
      count(part.parameters), size(part.weightBytes), size(part.stateBytes), count(part.prefillFlops), count(part.decodeFlops)]);
    rows.push(["together", "", count(profile.parameters), size(cost.weightBytes), size(cost.stateBytes),
      count(cost.prefillFlops), count(cost.decodeFlops)]);
    at("keep").textContent = Lamina.chosen().includes(profile.name) ? "Remove from comparison" : "Add to comparison";
    at("breakdown").replaceChildren(words.table("What each part costs in the setting above", heads, rows));
  }

  function start() {
    if (!at("breakdown")) return;
    at("keep").addEventListener("click", () => {
      const name = document.body.dataset.name, others = Lamina.chosen().filter((other) => other !== name);
      Lamina.change({ set: Lamina.chosen().includes(name) ? others : [...others, name] }, true);
    });
    Lamina.watch(figures.soon(show));
    show();
  }

  document.addEventListener("DOMContentLoaded", start);
})();
