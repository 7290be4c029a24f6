/* Numbers as people read them, as report/words.py writes them; and small helpers to make elements. */
(function (root) {
  "use strict";

  function scaled(value, units) {
    if (!isFinite(value)) return "–";
    let left = Number(value.toPrecision(3)), power = 0;
    while (left >= 1000 && power < units.length - 1) { left /= 1000; power += 1; }
    const digits = left < 1000 ? String(Number(left.toPrecision(3))) : Math.round(left).toLocaleString("en");
    return `${digits} ${units[power]}`.trim();
  }

  const count = (value) => scaled(value, ["", "K", "M", "B", "T", "P", "E"]);
  const size = (bytes) => scaled(bytes, ["B", "kB", "MB", "GB", "TB", "PB"]);
  const tokens = (n) => (n >= 1048576 && n % 1048576 === 0 ? `${n / 1048576}M`
    : n >= 1024 && n % 1024 === 0 ? `${n / 1024}k` : n.toLocaleString("en"));
  const seconds = (t) => (t >= 1 ? scaled(t, ["s"]) : t >= 1e-3 ? scaled(t * 1e3, ["ms"]) : scaled(t * 1e6, ["µs"]));

  /* 0, 1, 2, 5 as 0-2,5. */
  function runs(numbers) {
    const found = [];
    for (const n of numbers) {
      const last = found[found.length - 1];
      if (last && n === last[1] + 1) last[1] = n; else found.push([n, n]);
    }
    return found.map(([a, b]) => (a === b ? `${a}` : `${a}-${b}`)).join(",");
  }

  /* An element; text is always set as text, never as markup. */
  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  /* A table from a heading row and rows of cells; the first cell of a row is its heading. */
  function table(caption, heads, rows) {
    const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
    const body = rows.map(([first, ...rest]) =>
      element("tr", {}, element("th", { scope: "row" }, first), ...rest.map((cell) => element("td", {}, cell))));
    return element("table", {}, element("caption", { class: "hidden" }, caption),
      element("thead", {}, head), element("tbody", {}, ...body));
  }

  root.Lamina = Object.assign(root.Lamina || {}, { words: { count, size, tokens, seconds, runs, element, table } });
})(typeof window === "undefined" ? globalThis : window);
