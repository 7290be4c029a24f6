/* The figures of some architectures in a setting: memory, state, FLOPs and bounds on time, and a table of all. */
(function () {
  "use strict";

  const { words, charts } = Lamina;
  const CONTEXTS = Array.from({ length: 21 }, (_, i) => Math.round(2 ** (10 + i / 2)));
  const LINES = {
    state: ["State by context", "What the batch leaves behind: caches and recurrent states.",
      words.size, (cost) => cost.stateBytes],
    flops: ["FLOPs of the next token", "For one sequence after that much context; of a whole pass where attention looks both ways.",
      words.count, (cost, batch) => cost.decodeFlops / batch],
    first: ["First token, at the earliest", "The prompt’s FLOPs at the peak rate or its bytes at full bandwidth, whichever takes longer.",
      words.seconds, (cost) => cost.bounds.first],
    next: ["Each further token, at the earliest", "A decode step’s FLOPs at the peak rate or its bytes at full bandwidth, whichever takes longer.",
      words.seconds, (cost) => cost.bounds.next],
  };
  const PARTS = [
    ["weights", "--full-edge", (cost) => cost.weightBytes],
    ["state", "--delta-edge", (cost) => cost.stateBytes],
    ["working memory, for 2,048 tokens of a prompt at once", "--dense-edge", (cost) => cost.workingBytes],
  ];
  const HEADS = ["architecture", "parameters", "active", "weights", "state", "memory in all", "devices needed",
    "FLOPs, prompt", "FLOPs/token", "first token at least", "next token at least"];

  const least = (time, limit) => `${words.seconds(time)} (${limit})`;

  const needed = (cost, setting) => (cost.devicesNeeded <= setting.count ? String(cost.devicesNeeded)
    : words.element("span", { class: "over" }, `${cost.devicesNeeded} (${setting.count} chosen)`));

  function summary(profile, cost, setting, i) {
    const name = words.element("span", { class: "named" }, charts.swatch(i), profile.name);
    return [name, words.count(profile.parameters), words.count(profile.active), words.size(cost.weightBytes),
      cost.stateBytes ? words.size(cost.stateBytes) : "none", words.size(cost.neededBytes), needed(cost, setting),
      words.count(cost.prefillFlops), words.count(cost.decodeFlops / setting.batch),
      least(cost.bounds.first, cost.bounds.firstLimit), least(cost.bounds.next, cost.bounds.nextLimit)];
  }

  /* A figure: its title, what is under it, a canvas, and its numbers as a table. */
  function figure(id, title, under, wide) {
    const numbers = { class: "numbers scroll", tabindex: 0, role: "region", "aria-label": `${title}, as a table` };
    return words.element("figure", { id: `figure-${id}`, class: wide ? "chart wide" : "chart" },
      words.element("figcaption", {}, words.element("h3", {}, title), under),
      words.element("div", { class: "plot" }, words.element("canvas", { role: "img", "aria-label": title })),
      words.element("details", {}, words.element("summary", {}, "As a table", words.element("span", { class: "hidden" }, `: ${title}`)),
        words.element("div", numbers)));
  }

  function key() {
    return words.element("ul", { class: "key", "aria-label": "Colours" }, ...PARTS.map(([name, colour]) =>
      words.element("li", {}, words.element("i", { style: `background:var(${colour})` }), name)));
  }

  /* The figures, empty, where the page has a place for them. */
  function lay() {
    const place = document.getElementById("charts");
    if (!place || place.childElementCount) return;
    place.append(figure("memory", "Memory", key(), true), ...Object.entries(LINES).map(([id, [title, note]]) =>
      figure(id, title, words.element("p", {}, note))));
  }

  /* Draws all there is a place for in the page. */
  function show(profiles, setting) {
    lay();
    const costs = profiles.map((profile) => Lamina.price(profile, setting, Lamina.choices));
    const device = Lamina.choices.devices[setting.device];
    const place = document.getElementById("summary");
    const table = words.table("Costs in the setting above", HEADS,
      profiles.map((profile, i) => summary(profile, costs[i], setting, i)));
    if (place) place.replaceChildren(table);
    charts.bars("figure-memory", {
      title: "Memory", names: profiles.map((profile) => profile.name), format: words.size,
      parts: PARTS.map(([name, colour, of]) => ({ name, colour, values: costs.map(of) })),
      limit: { value: setting.count * device.memory, label: `${setting.count} × ${device.title}` },
    });
    const along = profiles.map((profile) =>
      CONTEXTS.map((context) => Lamina.price(profile, { ...setting, context }, Lamina.choices)));
    for (const [name, [title, , format, of]] of Object.entries(LINES)) {
      const series = profiles.map((profile, i) => ({
        name: profile.name, of: i, values: along[i].map((cost) => of(cost, setting.batch)),
      }));
      charts.lines(`figure-${name}`, { title, contexts: CONTEXTS, series, format, context: setting.context });
    }
    return costs;
  }

  /* Once a frame at most, however fast a slider moves. */
  function soon(task) {
    let asked = false;
    return () => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => { asked = false; task(); });
    };
  }

  Lamina.figures = { show, soon };
})();
