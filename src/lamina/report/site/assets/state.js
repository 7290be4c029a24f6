/* What is chosen, kept in the address (#set=a,b&context=32768...) so that a link says all of it; profiles, loaded
   when wanted; the theme. Files opened from disk cannot be fetched, so data are scripts that call Lamina.add. */
(function () {
  "use strict";

  const NUMBERS = { context: 32768, batch: 1, count: 1 };
  const NAMES = { plan: ["plans", "bfloat16"], cache: ["caches", "bfloat16"], device: ["devices", "h200"] };
  const listeners = [];
  const profiles = {};
  const waiting = {};

  let current = location.hash.slice(1); // what the address says, or will in a moment
  let waitingToWrite = null;

  /* What is chosen; a report, whose address says nothing yet, starts with what it was made for. */
  function parameters() {
    return new URLSearchParams(current || Lamina.start || "");
  }

  const chosen = () => (parameters().get("set") || "").split(",").filter(Boolean);
  const number = (text, fallback) => (/^\d{1,9}$/.test(text || "") && Number(text) > 0 ? Number(text) : fallback);

  /* The setting that the address names, as `Lamina.price` takes it: plan, cache and device are places. */
  function setting() {
    const given = parameters(), found = {};
    for (const [key, fallback] of Object.entries(NUMBERS)) found[key] = number(given.get(key), fallback);
    for (const [key, [list, fallback]] of Object.entries(NAMES)) {
      const place = (name) => Lamina.choices[list].findIndex((choice) => choice.name === name);
      found[key] = place(given.get(key)) >= 0 ? place(given.get(key)) : Math.max(0, place(fallback));
    }
    return found;
  }

  const written = (given) => given.toString().replaceAll("%2C", ",");

  /* Makes changes; `step` makes a place in the history to come back to. */
  function change(changes, step) {
    const next = parameters();
    for (const [key, value] of Object.entries(changes)) {
      const text = Array.isArray(value) ? value.join(",") : String(value);
      const fallback = NUMBERS[key] === undefined ? (NAMES[key] || [])[1] : String(NUMBERS[key]);
      if (text === "" || text === fallback) next.delete(key); else next.set(key, text);
    }
    if ((written(next) || "set=") === current) return;
    if (step) write();
    current = written(next) || "set=";
    if (step) write("pushState"); else waitingToWrite = waitingToWrite || setTimeout(write, 150);
    tell();
  }

  /* Brings the address up to date. Browsers refuse when it changes too often, as while a slider moves. */
  function write(how) {
    if (how !== "pushState" && !waitingToWrite) return;
    clearTimeout(waitingToWrite);
    waitingToWrite = null;
    try {
      history[how === "pushState" ? how : "replaceState"](null, "", `#${current}`);
    } catch { /* the page is right all the same */ }
  }

  function follow() {
    if (location.hash.slice(1) === current) return;
    clearTimeout(waitingToWrite);
    waitingToWrite = null;
    current = location.hash.slice(1);
    tell();
  }

  function tell() {
    keepLinks();
    countChosen();
    for (const listener of listeners) listener();
  }

  function countChosen() {
    const badge = document.querySelector("[data-many]");
    if (!badge) return;
    badge.hidden = !chosen().length;
    badge.textContent = ` ${chosen().length}`;
  }

  /* A link to a place in this page moves there, and leaves the address alone: it says what is chosen. */
  function skip(event) {
    const link = event.target.closest("a[data-skip]");
    if (!link) return;
    event.preventDefault();
    const target = document.querySelector(link.getAttribute("href"));
    target.scrollIntoView();
    target.focus({ preventScroll: true });
  }

  /* Links within the site take the choices along; those that name a set of their own keep it. */
  function keepLinks() {
    for (const link of document.querySelectorAll("a[data-keep]")) {
      const next = parameters();
      if (link.dataset.set) next.set("set", link.dataset.set);
      link.href = link.getAttribute("href").split("#")[0] + (written(next) ? `#${written(next)}` : "");
    }
  }

  function watch(listener) {
    listeners.push(listener);
  }

  function add(profile) {
    profiles[profile.name] = profile;
  }

  /* The profile of a name: a promise of it, or of null where there is none. */
  function profile(name) {
    if (Object.hasOwn(profiles, name)) return Promise.resolve(profiles[name]);
    if (!Lamina.names.includes(name)) return Promise.resolve(null);
    waiting[name] = waiting[name] || new Promise((resolve) => {
      const script = document.createElement("script");
      script.src = `${Lamina.base}data/${encodeURIComponent(name)}.js`;
      script.onload = script.onerror = () => resolve(profiles[name] || null);
      document.head.append(script);
    });
    return waiting[name];
  }

  const known = async (names) => (await Promise.all(names.map(profile))).filter(Boolean);

  // -- the theme: the system's, until it is chosen

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";

  function remembered(value) {
    try {
      if (value === undefined) return localStorage.getItem("lamina-theme");
      localStorage.setItem("lamina-theme", value);
    } catch { /* a browser that keeps nothing for files still shows them */ }
    return null;
  }

  function setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.setAttribute("aria-pressed", String(theme === "dark"));
  }

  if (["light", "dark"].includes(remembered())) setTheme(remembered());
  dark.addEventListener("change", tell);
  window.addEventListener("popstate", follow);
  window.addEventListener("hashchange", follow);
  window.addEventListener("pagehide", write);
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (button) {
      button.setAttribute("aria-pressed", String(isDark()));
      button.addEventListener("click", () => {
        setTheme(isDark() ? "light" : "dark");
        remembered(document.documentElement.dataset.theme);
        tell();
      });
    }
    document.addEventListener("click", skip);
    keepLinks();
    countChosen();
  });

  window.Lamina = Object.assign(window.Lamina || {}, { add, known, chosen, setting, change, watch, parameters, keepLinks });
})();
