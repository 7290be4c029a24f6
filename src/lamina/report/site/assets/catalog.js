/* The catalog: search and filters over the cards that are in the page, and the choice of some. */
(function () {
  "use strict";

  const at = (id) => document.getElementById(id);
  const KEYS = ["q", "size", "year", "licence", "sort"];
  const ORDERS = {
    newest: (a, b) => b.dataset.released.localeCompare(a.dataset.released) || a.dataset.name.localeCompare(b.dataset.name),
    name: (a, b) => a.dataset.name.localeCompare(b.dataset.name),
    largest: (a, b) => b.dataset.parameters - a.dataset.parameters,
    smallest: (a, b) => a.dataset.parameters - b.dataset.parameters,
    state: (a, b) => a.dataset.state - b.dataset.state,
  };
  let cards = [];

  const ticked = () => (Lamina.parameters().get("has") || "").split(",").filter(Boolean);

  function fits(card, wanted, having) {
    const said = card.dataset;
    return wanted.q.toLowerCase().split(/\s+/).every((word) => said.text.includes(word))
      && (!wanted.size || said.size === wanted.size)
      && (!wanted.year || said.released.startsWith(wanted.year))
      && (!wanted.licence || said.licence === wanted.licence)
      && having.every((tag) => said.has.split("|").includes(tag));
  }

  function show() {
    const given = Lamina.parameters();
    const wanted = Object.fromEntries(KEYS.map((key) => [key, given.get(key) || ""]));
    const having = ticked();
    for (const key of KEYS) if (document.activeElement !== at(key) || key !== "q") at(key).value = wanted[key] || (key === "sort" ? "newest" : "");
    for (const box of document.querySelectorAll("#has input")) box.checked = having.includes(box.value);
    let many = 0;
    for (const card of cards) {
      card.hidden = !fits(card, wanted, having);
      many += card.hidden ? 0 : 1;
    }
    const ordered = cards.toSorted(ORDERS[wanted.sort] || ORDERS.newest);
    if (ordered.some((card, i) => card !== at("cards").children[i])) at("cards").append(...ordered);
    const text = many === 1 ? "1 architecture" : `${many} architectures`;
    if (at("many").textContent !== text) at("many").textContent = text;
    at("none").hidden = many > 0;
    at("reset").hidden = !KEYS.some((key) => wanted[key]) && !having.length;
    choose();
  }

  /* The ticks of the cards and the tray, from the chosen set. */
  function choose() {
    const chosen = Lamina.chosen();
    for (const card of cards) card.querySelector("input").checked = chosen.includes(card.dataset.name);
    at("tray").hidden = !chosen.length;
    document.body.classList.toggle("choosing-some", chosen.length > 0);
    at("tray-said").textContent = chosen.length === 1 ? `${chosen[0]} is chosen` : `${chosen.length} chosen: ${chosen.join(", ")}`;
    at("tray-diff").hidden = chosen.length !== 2;
  }

  function start() {
    if (!at("cards")) return;
    cards = [...document.querySelectorAll("#cards > li")];
    if (matchMedia("(max-width: 60rem)").matches) at("filters").open = false;
    at("q").addEventListener("input", (event) => Lamina.change({ q: event.target.value }));
    for (const key of KEYS.slice(1)) {
      at(key).addEventListener("change", (event) => Lamina.change({ [key]: key === "sort" && event.target.value === "newest" ? "" : event.target.value }, true));
    }
    at("has").addEventListener("change", () =>
      Lamina.change({ has: [...document.querySelectorAll("#has input:checked")].map((box) => box.value) }, true));
    at("cards").addEventListener("change", (event) => {
      const name = event.target.value, others = Lamina.chosen().filter((other) => other !== name);
      Lamina.change({ set: event.target.checked ? [...others, name] : others }, true);
    });
    at("search").addEventListener("submit", (event) => event.preventDefault());
    const nothing = Object.fromEntries([...KEYS, "has"].map((key) => [key, ""]));
    at("reset").addEventListener("click", () => { Lamina.change(nothing, true); at("q").value = ""; at("q").focus(); });
    at("tray-clear").addEventListener("click", () => Lamina.change({ set: "" }, true));
    Lamina.watch(show);
    show();
  }

  document.addEventListener("DOMContentLoaded", start);
})();
