"use strict";
// Draws the curves and the calibration from the data that series.py has written into the page:
//   axes    titles of the three things that curves are drawn over
//   lines   runs: label, framework, colour, tracks and bins; a track has x (three arrays) and values by metric
//   bands   groups of seeds: the same of their means, with low and high by metric, and lines, the places of its runs
//   charts  title, metrics, share, positive, log, and the part of the page it is in
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const state = { axis: 0, bands: data.bands.length > 0, log: true, train: true, val: true, bins: "as trained",
                  zoom: null, hidden: new Set(), lit: null };
  let plots = [], last = 1;  // last: the right end of all curves

  const find = (words) => document.querySelector(words);
  const every = (words) => [...document.querySelectorAll(words)];
  const make = (tag, name, text = "") => Object.assign(document.createElement(tag), { className: name, textContent: text });
  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const entries = () => (state.bands ? data.bands : data.lines);

  function write(value, share) {
    if (value == null) return "–";
    if (share) return Number((100 * value).toFixed(2)) + " %";
    const size = Math.abs(value);
    return size >= 1e4 ? value.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 4 })
      : size >= 100 || Number.isInteger(value) ? String(Math.round(value)) : size && size < 1e-3
        ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  }

  // The curves of a chart: {entry, name, dash, x, y} and, of a band, low and high.
  function collect(chart) {
    const found = [];
    for (const [split, metric] of Object.entries(chart.metrics)) {
      if ((split === "train" && !state.train) || (split === "val" && !state.val)) continue;
      const name = { train: "training", val: "validation" }[split] || "";
      const pick = (owner, entry) => owner.tracks.filter((track) => metric in track.values).forEach((track) => {
        const kept = track.x[state.axis].map((x, place) => place).filter((place) => track.x[state.axis][place] != null);
        const take = (part) => part && kept.map((place) => part[metric][place]);
        found.push({ entry, name, dash: split === "train" ? [6, 4] : [], x: kept.map((place) => track.x[state.axis][place]),
                     y: take(track.values), low: take(track.low), high: take(track.high) });
      });
      for (const entry of entries()) {
        if (state.hidden.has(entry)) continue;
        const banded = !entry.lines || entry.tracks.some((track) => metric in track.values);
        (banded ? [entry] : entry.lines.map((place) => data.lines[place])).forEach((owner) => pick(owner, entry));
      }
    }
    return found;
  }

  function collectBins() {
    return entries().filter((entry) => !state.hidden.has(entry) && entry.bins[state.bins]).map((entry) => {
      const [x, y, images] = entry.bins[state.bins];
      return { entry, name: "", dash: [], x, y, images };
    });
  }

  const fade = (entry, strength = "") => () => entry.colour + (state.lit && state.lit !== entry ? "22" : strength);

  function draw(place, chart, curves, own) {
    const figure = make("figure", "chart"), told = make("div", "told");
    figure.append(make("figcaption", "", chart.title));
    place.append(figure);
    const tables = [], series = [{}], bands = [];
    const alone = new Set(curves.map((curve) => curve.entry)).size <= 2
      && new Set(curves.map((curve) => curve.entry.label + curve.name)).size === curves.length;
    for (const curve of curves) {
      // The siblings' curves often coincide: the second is thin on top of a thick first, so that both are seen.
      const width = alone && curve.entry.framework === "lightning" ? 3 : 1.5;
      series.push({ label: curve.entry.label, stroke: fade(curve.entry), width, dash: curve.dash, curve,
                    points: { fill: () => ink("--paper"), size: 6, ...(curve.images ? { show: true } : {}) } });
      tables.push([curve.x, curve.y]);
      if (curve.low) {
        tables[tables.length - 1].push(curve.low, curve.high);
        const edge = { stroke: "transparent", width: 0, points: { show: false } };
        series.push(edge, { ...edge });
        bands.push({ series: [series.length - 1, series.length - 2], fill: fade(curve.entry, "2e") });
      }
    }
    if (chart.diagonal) {
      series.push({ stroke: () => ink("--quiet"), dash: [2, 4], width: 1, points: { show: false } });
      tables.push([[0, 1], [0, 1]]);
    }
    if (!tables.length) {
      figure.append(make("p", "", "Nothing to draw here."));
      return;
    }
    const log = chart.log && state.log;
    const line = { stroke: () => ink("--line"), width: 1 };
    const axis = (more) => ({ stroke: () => ink("--ink"), grid: line, ticks: line, font: "12px system-ui, sans-serif", ...more });
    // Of a logarithmic scale the lines at 1, 2 and 5 of each power of ten.
    const few = log && { filter: (u, ticks) => ticks.map((value) => ("125".includes(value.toExponential()[0]) ? value : null)) };
    const plot = new uPlot({
      width: figure.clientWidth, height: 270, legend: { show: false }, series, bands,
      scales: { x: { time: false, min: own.range[0], max: own.range[1] },
                y: chart.diagonal ? { range: [0, 1.02] } : { distr: log ? 3 : 1 } },
      axes: [axis({ values: (u, ticks) => ticks.map((value) => write(value, chart.diagonal)), size: 34 }),
             axis({ values: (u, ticks) => ticks.map((value) => (value == null ? "" : write(value, chart.share))), size: 62,
                    ...few, grid: { ...line, ...few }, ticks: { ...line, ...few } })],
      focus: { alpha: curves.length > 4 ? 0.25 : 1 },
      cursor: { points: { size: 8, fill: (u, number) => u.series[number].curve?.entry.colour || "transparent" },
                focus: { prox: 24 }, drag: { x: own.zooms, y: false }, dataIdx: nearest,
                bind: { dblclick: () => () => zoom(null) } },
      hooks: { setScale: [(u, key) => key === "x" && follow(u, figure, own.zooms)], setCursor: [(u) => tell(u, told, chart)],
               setSeries: [(u) => tell(u, told, chart)] },
    }, tables.length > 1 ? uPlot.join(tables) : tables[0], figure);
    figure.append(told);
    plots.push({ plot, figure, zooms: own.zooms });
  }

  // The place nearest to the cursor at which a series has a value: the others are those of other runs.
  function nearest(plot, series, place) {
    const values = plot.data[series];
    for (let far = 0; far < values.length; far++) {
      for (const found of [place - far, place + far]) if (values[found] != null) return found;
    }
    return place;
  }

  function tell(plot, told, chart) {
    const places = plot.cursor.idxs || [];
    const shown = plot.series.map((series, number) => ({ series, number })).filter(({ series, number }) =>
      series.curve && plot.cursor.idx != null && plot.data[number][places[number]] != null);
    const lit = shown.filter(({ series }) => series._focus);
    told.replaceChildren(...(shown.length > 4 ? lit.slice(0, 1) : shown).map(({ series, number }) => {
      const { curve } = series, x = plot.data[0][places[number]], low = curve.low && curve.low[curve.x.indexOf(x)];
      const line = make("span", "", ` ${curve.entry.label}${curve.name && `, ${curve.name}`}: `
        + write(plot.data[number][places[number]], chart.share)
        + (curve.low ? ` (${write(low, chart.share)} to ${write(curve.high[curve.x.indexOf(x)], chart.share)})` : "")
        + ` at ${write(x, chart.diagonal)}${curve.images ? `, ${curve.images[curve.x.indexOf(x)]} images` : ""}`);
      line.prepend(swatch(curve.entry));
      return line;
    }));
  }

  function swatch(entry) {
    const sign = make("i", "swatch");
    sign.style.background = entry.colour;
    return sign;
  }

  let following = false;
  function follow(plot, figure, zooms) {
    const { min, max } = plot.scales.x;
    Object.assign(figure.dataset, { from: min, to: max });  // for whoever drives the page by a program
    if (following || !zooms) return;
    zoom(min <= 0 && max >= last ? null : [min, max]);
  }

  function zoom(range) {
    state.zoom = range;
    const [min, max] = range || [0, last];
    following = true;
    plots.filter((one) => one.zooms).forEach((one) => one.plot.setScale("x", { min, max }));
    setTimeout(() => { following = false; });  // the plots tell of the change after this turn
  }

  function move(factor, share) {
    const [min, max] = state.zoom || [0, last], span = (max - min) * factor;
    const start = Math.max(0, (min + max - span) / 2 + share * span), end = Math.min(last, start + span);
    zoom(start <= 0 && end >= last ? null : [Math.max(0, end - span), end]);
  }

  function drawAll() {
    plots.forEach((one) => one.plot.destroy());
    plots = [];
    every(".charts").forEach((place) => place.replaceChildren());
    const drawn = data.charts.map((chart) => ({ chart, curves: collect(chart) }));
    last = drawn.flatMap(({ curves }) => curves).reduce((high, curve) => Math.max(high, ...curve.x.slice(-1)), 0) || 1;
    const own = { zooms: true, range: state.zoom || [0, last] };
    for (const { chart, curves } of drawn) {
      const place = find(`.charts[data-of="${chart.of}"]`);
      if (place) draw(place, { ...chart, title: `${chart.title} over ${data.axes[state.axis]}` }, curves, own);
    }
    const place = find('.charts[data-of="calibration"]');
    if (place) draw(place, { title: "accuracy over the probability of the answer", share: true, diagonal: true },
                    collectBins(), { zooms: false, range: [0, 1] });
  }

  function drawLegend() {
    find(".legend").replaceChildren(...entries().map((entry) => {
      const label = make("label", ""), box = Object.assign(make("input", ""), { type: "checkbox", checked: !state.hidden.has(entry) });
      box.addEventListener("change", () => {
        state.hidden[box.checked ? "delete" : "add"](entry);
        state.lit = null;
        drawAll();
      });
      const light = (lit) => () => {
        state.lit = state.hidden.has(lit) ? null : lit;
        plots.forEach((one) => one.plot.redraw(false));
      };
      label.addEventListener("mouseenter", light(entry));
      label.addEventListener("mouseleave", light(null));
      label.append(box, swatch(entry), ` ${entry.label}`);
      return label;
    }));
  }

  every("[name=axis]").forEach((box) => box.addEventListener("change", () => {
    Object.assign(state, { axis: Number(box.value), zoom: null });
    drawAll();
  }));
  every("[name=bins]").forEach((box) => box.addEventListener("change", () => {
    state.bins = box.value;
    drawAll();
  }));
  for (const name of ["train", "val", "log", "bands"]) {
    find(`#${name}`)?.addEventListener("change", (event) => {
      state[name] = event.target.checked;
      drawLegend();
      drawAll();
    });
  }
  for (const [name, act] of Object.entries({ closer: () => move(0.5, 0), wider: () => move(2, 0), left: () => move(1, -0.5),
                                             right: () => move(1, 0.5), all: () => zoom(null) })) {
    find(`#${name}`).addEventListener("click", act);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach((one) => one.plot.redraw(false)));
  new ResizeObserver(() => plots.forEach(({ plot, figure }) => {
    if (figure.clientWidth && figure.clientWidth !== plot.width) plot.setSize({ width: figure.clientWidth, height: 270 });
  })).observe(document.body);
  drawLegend();
  drawAll();
})();
