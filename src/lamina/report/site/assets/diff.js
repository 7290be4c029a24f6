/* The page of a diff: two architectures, fact by fact, part by part, field by field. */
(function () {
  "use strict";

  const { words, difference } = Lamina;
  const at = (id) => document.getElementById(id);
  
  /* The two that are compared: those named as `diff`, or the first of the chosen set. */
  function pair() {
    const named = (Lamina.parameters().get("diff") || "").split(",").filter(Boolean);
    return (named.length ? named : Lamina.chosen()).slice(0, 2);
  }

  /* In a report the set stays as it is; on the site these two lead it. */
  function put(left, right) {
    const rest = Lamina.chosen().slice(2).filter((name) => name !== left && name !== right);
    const two = [left, right].filter(Boolean);
    Lamina.change(Lamina.report ? { diff: two } : { set: [...two, ...rest], diff: "" }, true);
  }

  function facts(profile) {
    const setting = Lamina.setting(), context = words.tokens(setting.context);
    const cost = Lamina.price(profile, setting, Lamina.choices);
    return {
      released: profile.released || "not stated",
      licence: profile.licence || "not stated",
      parameters: words.count(profile.parameters),
      active: words.count(profile.active),
      layers: String(profile.layers),
      pattern: profile.pattern,
      width: profile.width.toLocaleString("en"),
      vocabulary: profile.vocab.toLocaleString("en"),
      context: profile.context ? words.tokens(profile.context) : "not stated",
      mixers: profile.attention,
      [`state at ${context}`]: cost.stateBytes ? words.size(cost.stateBytes) : "none",
      [`FLOPs/token at ${context}`]: words.count(cost.decodeFlops / setting.batch),
    };
  }

  const split = (said) => (said || "").split(/(?<=[,;]) /);
  const bare = (phrase) => phrase.replace(/[,;]$/, "");

  /* Phrases of one side; those that the other side lacks are marked, where the two have any in common. */
  function phrases(text, other) {
    if (text === undefined) return [words.element("span", { class: "absent" }, "none")];
    const theirs = new Set(split(other).map(bare));
    const own = split(text);
    if (!own.some((phrase) => theirs.has(bare(phrase)))) return [text];
    return own.flatMap((phrase, i) => [i ? " " : "", theirs.has(bare(phrase)) ? phrase : words.element("mark", {}, phrase)]);
  }

  function row(heading, left, right) {
    const same = left === right;
    const cells = [[left, right], [right, left]].map(([own, other]) =>
      words.element("td", { role: "cell" }, ...(same ? [own === undefined ? "none" : own] : phrases(own, other))));
    return words.element("tr", { role: "row", class: same ? "same" : "differs" },
      words.element("th", { role: "rowheader", scope: "row" }, heading, same ? null : words.element("span", { class: "hidden" }, " (differs)")), ...cells);
  }

  /* Roles are said out loud, for on a narrow page the rows are laid out as grids, and would lose them. */
  function table(caption, names, rows) {
    const head = words.element("tr", { role: "row" }, ...["what", ...names].map((name) =>
      words.element("th", { role: "columnheader", scope: "col" }, name)));
    return words.element("table", { role: "table", class: "sides" }, words.element("caption", { class: "hidden" }, caption),
      words.element("thead", { role: "rowgroup" }, head), words.element("tbody", { role: "rowgroup" }, ...rows));
  }

  function titled(title, a, b, rows) {
    const scroll = words.element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title },
      table(title, [a.name, b.name], rows));
    return words.element("section", {}, words.element("h4", {}, title), scroll);
  }

  /* A table for each pair of kinds of blocks that meet, after one of what stands around them. */
  function parts(a, b) {
    const [one, two] = [a, b].map((side) => Object.fromEntries(side.fields.around));
    const names = [...new Set([...Object.keys(one), ...Object.keys(two)])];
    const around = titled("Around the layers", a, b, names.map((name) => row(name, one[name], two[name])));
    const blocks = difference.meetings(a.fields.stacks.blocks, b.fields.stacks.blocks).map(({ left, right, layers }) => {
      const [l, r] = [left === null ? {} : a.fields.kinds[left].parts, right === null ? {} : b.fields.kinds[right].parts];
      const roles = [...new Set([...Object.keys(l), ...Object.keys(r)])];
      const title = `${layers.length === 1 ? "Layer" : "Layers"} ${words.runs(layers).replaceAll("-", "–").replaceAll(",", ", ")}`;
      const rows = roles.map((role) => row(role.replaceAll("_", "-"), l[role], r[role]));
      return titled(title, a, b, rows);
    });
    return [...blocks, around];
  }

  function paths(a, b) {
    const found = difference.differences(a.fields, b.fields);
    const rows = found.map(({ stack, path, left, right, layers }) => {
      const where = stack ? `${stack}[${words.runs(layers)}]${path && "."}${path}` : path;
      const cells = [left, right].map((value) => words.element("td", { role: "cell" }, value === undefined
        ? words.element("span", { class: "absent" }, "none") : words.element("code", {}, value)));
      return words.element("tr", { role: "row" }, words.element("th", { role: "rowheader", scope: "row" }, words.element("code", {}, where)), ...cells);
    });
    at("paths-many").textContent = found.length === 1 ? "1 field differs" : `${found.length} fields differ`;
    return table("Fields that differ, by path", [a.name, b.name], rows);
  }

  async function show() {
    const [left, right] = pair();
    at("left").value = Lamina.names.includes(left) ? left : "";
    at("right").value = Lamina.names.includes(right) ? right : "";
    const [a, b] = await Promise.all([left, right].map(async (name) => (await Lamina.known([name].filter(Boolean)))[0]));
    at("sides").hidden = !(a && b);
    at("diff-empty").hidden = Boolean(a && b);
    if (!a || !b) return;
    if (!Lamina.report) document.title = `${a.name} and ${b.name} · Lamina`;
    const [one, two] = [facts(a), facts(b)];
    at("facts").replaceChildren(table("Facts", [a.name, b.name], Object.keys(one).map((key) => row(key, one[key], two[key]))));
    at("strips").replaceChildren(...[a, b].map(layers));
    at("parts").replaceChildren(...parts(a, b));
    at("paths").replaceChildren(paths(a, b));
    at("diff-status").textContent = `${a.name} and ${b.name}: ${at("paths-many").textContent}`;
  }

  function layers(profile) {
    const holder = words.element("div", {}, words.element("h4", {}, Lamina.report ? profile.name : words.element("a",
      { href: `${Lamina.base}architectures/${encodeURIComponent(profile.name)}.html${location.hash}` }, profile.name)));
    if (profile.strip) holder.insertAdjacentHTML("beforeend", profile.strip); // made by us of numbers alone
    holder.append(words.element("p", {}, profile.pattern));
    return holder;
  }

  function start() {
    if (!at("sides")) return;
    const choose = () => put(at("left").value, at("right").value);
    at("left").addEventListener("change", choose);
    at("right").addEventListener("change", choose);
    at("choosing").addEventListener("submit", (event) => event.preventDefault());
    at("swap").addEventListener("click", () => {
      const [left, right] = pair();
      if (right) put(right, left);
    });
    Lamina.watch(show);
    show();
  }

  document.addEventListener("DOMContentLoaded", start);
})();
