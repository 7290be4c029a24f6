/* The comparison: which architectures are chosen, and their figures. */
(function () {
  "use strict";

  const { words, charts, figures } = Lamina;
  const at = (id) => document.getElementById(id);

  function chip(name, i) {
    const remove = words.element("button", { type: "button", "aria-label": `remove ${name}` }, "×");
    remove.addEventListener("click", () => {
      Lamina.change({ set: Lamina.chosen().filter((other) => other !== name) }, true);
      at("add-name").focus();
    });
    const link = words.element("a", { href: `${Lamina.base}architectures/${encodeURIComponent(name)}.html`, "data-keep": true }, name);
    return words.element("li", {}, charts.swatch(i), Lamina.report ? name : link, remove);
  }

  async function show() {
    const profiles = await Lamina.known(Lamina.chosen());
    const names = profiles.map((profile) => profile.name);
    at("chosen").replaceChildren(...names.map(chip));
    at("empty").hidden = names.length > 0;
    at("figures").hidden = names.length === 0;
    for (const option of at("add-name").options) option.disabled = names.includes(option.value);
    const text = names.length === 1 ? "1 architecture is compared" : `${names.length} architectures are compared`;
    if (at("status").textContent !== text) at("status").textContent = text;
    if (names.length) figures.show(profiles, Lamina.setting());
    Lamina.keepLinks();
  }

  function start() {
    if (!at("chosen")) return;
    at("adding").addEventListener("submit", (event) => {
      event.preventDefault();
      const name = at("add-name").value;
      if (name && !Lamina.chosen().includes(name)) Lamina.change({ set: [...Lamina.chosen(), name] }, true);
      at("add-name").value = "";
    });
    at("clear").addEventListener("click", () => Lamina.change({ set: "" }, true));
    const again = figures.soon(show);
    Lamina.watch(again);
    show();
  }

  document.addEventListener("DOMContentLoaded", start);
})();
