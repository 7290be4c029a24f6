/* Charts, drawn by Chart.js in the colours of the page; every one says its numbers in a table, too. */
(function () {
  "use strict";

  const { words } = Lamina;
  const DASHES = [[], [9, 4], [2, 3], [9, 3, 2, 3]];
  const POINTS = ["circle", "rect", "triangle", "rectRot"];
  const COLOURS = 8;
  const charts = new Map();

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (i) => css(`--series-${i % COLOURS}`);
  const turn = (i) => (i + Math.floor(i / COLOURS)) % DASHES.length; // so that 32 lines differ from one another
  const dash = (i) => DASHES[turn(i)];

  Chart.defaults.animation = false;
  Chart.defaults.font.family = "'Lamina Sans', system-ui, sans-serif";
  Chart.defaults.font.size = 12;

  /* A vertical line where the setting stands, or where a device's memory ends. */
  const marker = {
    id: "marker",
    afterDatasetsDraw(chart, _, options) {
      const { ctx, chartArea: area, scales: { x } } = chart;
      const at = options.value === undefined ? NaN : x.getPixelForValue(options.value);
      if (!(at >= area.left && at <= area.right + 1)) return;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = css("--ink");
      ctx.setLineDash([3, 3]);
      ctx.beginPath();
      ctx.moveTo(at, area.top);
      ctx.lineTo(at, area.bottom);
      ctx.stroke();
      ctx.font = `600 11px ${Chart.defaults.font.family}`;
      const room = ctx.measureText(options.label).width + 8;
      ctx.textAlign = at + room > area.right ? "right" : "left";
      ctx.fillText(options.label, at + (ctx.textAlign === "right" ? -5 : 5), area.top - 5);
      ctx.restore();
    },
  };
  Chart.register(marker);

  function shown(canvas, config) {
    const before = charts.get(canvas);
    if (before) {
      Object.assign(before, { options: config.options });
      before.data = config.data;
      before.update("none");
    } else {
      charts.set(canvas, new Chart(canvas, config));
    }
  }

  function axis(format, more) {
    const grid = { color: css("--line"), tickColor: "transparent" };
    const ticks = { color: css("--muted"), callback: (value) => format(value), maxRotation: 0 };
    return { grid, border: { display: false }, ...more, ticks: { ...ticks, ...(more && more.ticks) } };
  }

  function tooltip(format) {
    return {
      backgroundColor: css("--ink"), titleColor: css("--paper"), bodyColor: css("--paper"), footerColor: css("--paper"), padding: 10, boxPadding: 5,
      usePointStyle: true, callbacks: {
        label: (item) => ` ${item.dataset.label}: ${format(item.parsed[item.chart.options.indexAxis === "y" ? "x" : "y"])}`,
      },
    };
  }

  /* The canvas of a figure, its label for those who hear it, and its table. */
  function described(figure, label, table) {
    const canvas = figure.querySelector("canvas");
    canvas.setAttribute("aria-label", label);
    figure.querySelector(".numbers").replaceChildren(table);
    return canvas;
  }

  /* Lines against context, both axes logarithmic. series: [{ name, values, of }], `of` the place of its colour. */
  function lines(id, { title, contexts, series, format, context }) {
    const figure = document.getElementById(id);
    const rows = contexts.filter((n) => Math.log2(n) % 1 === 0).map((n) =>
      [words.tokens(n), ...series.map((s) => format(s.values[contexts.indexOf(n)]))]);
    const label = `${title}, against context from ${words.tokens(contexts[0])} to ${words.tokens(contexts.at(-1))}, for `
      + `${series.map((s) => s.name).join(", ") || "nothing yet"}. The table below has the numbers.`;
    const canvas = described(figure, label, words.table(title, ["context", ...series.map((s) => s.name)], rows));
    const datasets = series.map((s) => ({
      label: s.name, data: contexts.map((n, k) => ({ x: n, y: s.values[k] || NaN })), borderColor: colour(s.of),
      backgroundColor: colour(s.of), borderDash: dash(s.of), borderWidth: 2, pointStyle: POINTS[turn(s.of)],
      pointRadius: contexts.map((n) => (Math.log2(n) % 2 === 0 ? 3 : 0)), pointHoverRadius: 5, clip: 8,
    }));
    const powers = (scale) => { scale.ticks = contexts.filter((n) => Math.log2(n) % 2 === 0).map((value) => ({ value })); };
    shown(canvas, {
      type: "line", data: { datasets },
      options: {
        responsive: true, maintainAspectRatio: false, interaction: { mode: "nearest", axis: "x", intersect: false },
        layout: { padding: { top: 18, right: 8 } },
        scales: {
          x: axis(words.tokens, { type: "logarithmic", min: contexts[0], max: contexts.at(-1), afterBuildTicks: powers }),
          y: axis(format, { type: "logarithmic", ticks: { maxTicksLimit: 7 }, afterBuildTicks: decades }),
        },
        plugins: {
          legend: { display: false }, marker: { value: context, label: words.tokens(context) },
          tooltip: { ...tooltip(format), itemSort: (a, b) => b.parsed.y - a.parsed.y,
            callbacks: { ...tooltip(format).callbacks, title: ([item]) => `at ${words.tokens(item.parsed.x)}` } },
        },
      },
    });
  }

  /* Ticks of a logarithmic axis at powers of ten, and at 2 and 5 between them where there are few. */
  function decades(scale) {
    const steps = Math.log10(scale.max / scale.min) > 3 ? [1] : [1, 2, 5];
    const from = Math.floor(Math.log10(scale.min)), to = Math.ceil(Math.log10(scale.max));
    const ticks = [];
    for (let power = from; power <= to; power += 1) {
      for (const step of steps) {
        const value = step * Math.pow(10, power);
        if (value >= scale.min && value <= scale.max) ticks.push({ value });
      }
    }
    if (ticks.length > 1) scale.ticks = ticks;
  }

  /* Stacked bars, one for each name. parts: [{ name, values, colour }]; `limit` is where a line is drawn. */
  function bars(id, { title, names, parts, format, limit }) {
    const figure = document.getElementById(id);
    const totals = names.map((_, i) => parts.reduce((sum, part) => sum + part.values[i], 0));
    const rows = names.map((name, i) => [name, ...parts.map((part) => format(part.values[i])), format(totals[i])]);
    const label = `${title}: ${names.map((name, i) => `${name} ${format(totals[i])}`).join(", ") || "nothing yet"}; `
      + `${limit.label} holds ${format(limit.value)}.`;
    const canvas = described(figure, label, words.table(title, ["architecture", ...parts.map((p) => p.name), "together"], rows));
    figure.querySelector(".plot").style.height = `${Math.max(3, names.length) * 34 + 64}px`;
    const datasets = parts.map((part) => ({
      label: part.name, data: part.values, backgroundColor: css(part.colour), hoverBackgroundColor: css(part.colour), barThickness: 18, borderRadius: 2,
    }));
    shown(canvas, {
      type: "bar", data: { labels: names, datasets },
      options: {
        indexAxis: "y", responsive: true, maintainAspectRatio: false, interaction: { mode: "index", intersect: false },
        layout: { padding: { top: 18, right: 8 } },
        scales: {
          x: axis(format, { stacked: true, suggestedMax: limit.value * 1.05, ticks: { maxTicksLimit: 6 } }),
          y: axis((i) => names[i], { stacked: true, grid: { display: false }, ticks: { color: css("--ink"), autoSkip: false } }),
        },
        plugins: {
          marker: limit,
          legend: { display: false },
          tooltip: { ...tooltip(format), callbacks: { ...tooltip(format).callbacks,
            footer: ([item]) => (item ? `together: ${format(totals[item.dataIndex])}` : "") } },
        },
      },
    });
  }

  /* A piece of the line that stands for the series at a place, to put beside its name. */
  function swatch(i) {
    const NS = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(NS, "svg"), line = document.createElementNS(NS, "path");
    for (const [key, value] of Object.entries({ width: 30, height: 10, "aria-hidden": "true" })) svg.setAttribute(key, value);
    line.setAttribute("d", "M1 5h28");
    line.setAttribute("style", `stroke:var(--series-${i % COLOURS});stroke-width:3;stroke-dasharray:${dash(i).join(" ")}`);
    svg.append(line);
    return svg;
  }

  Lamina.charts = { lines, bars, swatch };
})();
