/* The controls of a setting: they show what the address says, and write to it. */
(function () {
  "use strict";

  const { words } = Lamina;
  const RANGES = { context: words.tokens, batch: (n) => n.toLocaleString("en") }; // powers of two
  const SELECTS = { plan: "plans", cache: "caches", device: "devices" };
  const COUNTS = [1, 2, 4, 8, 16, 32, 64, 72];
  const field = (name) => document.getElementById(`setting-${name}`);

  function show() {
    const setting = Lamina.setting();
    for (const [name, format] of Object.entries(RANGES)) {
      field(name).value = Math.log2(setting[name]);
      field(name).setAttribute("aria-valuetext", name === "context" ? `${format(setting[name])} tokens` : format(setting[name]));
      document.getElementById(`said-${name}`).textContent = format(setting[name]);
    }
    for (const [name, list] of Object.entries(SELECTS)) field(name).value = Lamina.choices[list][setting[name]].name;
    if (![...field("count").options].some((option) => option.value === String(setting.count))) {
      field("count").append(words.element("option", { value: setting.count }, String(setting.count)));
    }
    field("count").value = setting.count;
  }

  const labelled = (name, text, ...rest) => words.element("div", {}, words.element("label", { for: `setting-${name}` }, text), ...rest);

  const range = (name, text, min, max) => labelled(name, text,
    words.element("output", { id: `said-${name}`, for: `setting-${name}` }),
    words.element("input", { id: `setting-${name}`, type: "range", min, max, step: 1 }));

  const select = (name, text, choices) => labelled(name, text, words.element("select", { id: `setting-${name}` },
    ...choices.map(([value, said]) => words.element("option", { value }, said))));

  function controls() {
    const named = (list) => Lamina.choices[list].map((one) => [one.name, one.title || one.name.replace(",", ", ")]);
    return [range("context", "Context", 10, 20), range("batch", "Batch", 0, 9), select("plan", "Weights in", named("plans")),
      select("cache", "State in", named("caches")), select("device", "Device", named("devices")),
      select("count", "Devices", COUNTS.map((n) => [n, n]))];
  }

  function start() {
    const form = document.getElementById("settings");
    if (!form) return;
    form.replaceChildren(...controls());
    for (const name of Object.keys(RANGES)) {
      field(name).addEventListener("input", (event) => Lamina.change({ [name]: 2 ** Number(event.target.value) }));
    }
    for (const name of [...Object.keys(SELECTS), "count"]) {
      field(name).addEventListener("change", (event) => Lamina.change({ [name]: event.target.value }, true));
    }
    form.addEventListener("submit", (event) => event.preventDefault());
    Lamina.watch(show);
    show();
  }

  document.addEventListener("DOMContentLoaded", start);
})();
