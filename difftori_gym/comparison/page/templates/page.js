"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
// Okabe and Ito's colours; in black and white dashes and markers tell the methods apart.
const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933", "#332288"];
const GREYS = ["#333", "#666", "#888", "#aaa"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const STROKES = { dash: "6 3", dot: "2 3", dashdot: "6 3 2 3", longdash: "10 4", longdashdot: "10 3 2 3" };
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "triangle-down", "star", "cross"];
const SHAPES = ["●", "■", "◆", "▲", "✖", "▼", "★", "✚"];
const AXES = { wall: "wall-clock seconds of training", cpu: "processor seconds of training" };
const entries = Object.keys(data.labels);
const $ = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];
const style = (index, list) => list[index % list.length];
const entity = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;"); // plotly reads markup in texts
const label = (entry) => entity(data.labels[entry] ?? "");
const span = ([value, low, high], digits = 1) =>
  (value?.toFixed(digits) ?? "-") + (low === null ? "" : ` [${low.toFixed(digits)}, ${high.toFixed(digits)}]`);
function make(parent, tag, text = "", attributes = {}, space = "http://www.w3.org/1999/xhtml") {
  const node = parent.appendChild(document.createElementNS(space, tag));
  node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// What the reader chose outlives a reload.
const memory = "report " + location.pathname;
const chosen = { off: [], hidden: [], open: [], axis: "amount", bands: true, published: true, reference: "", start: "" };
try {
  Object.assign(chosen, JSON.parse(sessionStorage.getItem(memory)));
} catch {}
function keep(change) {
  Object.assign(chosen, change);
  try {
    sessionStorage.setItem(memory, JSON.stringify(chosen));
  } catch {}
}
const shown = (names) => names.filter((name) => !chosen.off.includes(name));

// Figures
function figure(parent, heading) {
  const box = make(parent, "div");
  make(box, "h3", heading);
  const node = make(box, "div", "", { class: "plot", tabindex: 0, role: "img" });
  node.onkeydown = (event) => {
    const move = { "+": [0.1, -0.1], "-": [-0.125, 0.125], ArrowLeft: [-0.1, -0.1], ArrowRight: [0.1, 0.1] }[event.key];
    if (!move && event.key !== "0") return;
    event.preventDefault();
    const [low, high] = node._fullLayout.xaxis.range;
    const range = move?.map((part, end) => [low, high][end] + part * (high - low));
    Plotly.relayout(node, move ? { "xaxis.range": range } : { "xaxis.autorange": true, "yaxis.autorange": true });
  };
  return node;
}
function draw(node, what, traces, layout) {
  const axis = (own) => ({ automargin: true, gridcolor: "#ddd", zeroline: false, showline: true, linecolor: "#555", ...own });
  node.setAttribute("aria-label", what + ". Keys plus, minus, arrows and 0 zoom and move; the tables have the numbers.");
  Plotly.react(node, traces, {
    margin: { l: 50, r: 12, t: 28, b: 40 }, font: { size: 12, color: "#111" }, hovermode: "closest", showlegend: false,
    ...layout, xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
  }, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] });
}
function look(entry) {
  const index = entries.indexOf(entry);
  const color = style(index, COLORS);
  const marker = { color, symbol: style(index, SYMBOLS), size: 8 };
  return { name: label(entry), meta: entry, line: { color, dash: style(index, DASHES), width: 2 }, marker };
}
function line(entry, x, estimates, digits, more = {}) {
  const text = estimates.map((each, at) => span(each, digits) + (more.seeds ? `, seeds: ${more.seeds[at]}` : ""));
  const y = estimates.map((each) => each[0]);
  const traces = [{ ...look(entry), mode: "lines+markers", x, y, text, hovertemplate: "%{text} at %{x:,.0f}", ...more.trace }];
  if (chosen.bands && estimates.some((each) => each[1] !== null)) {
    const ends = (end) => estimates.map((each) => each[end] ?? each[0]);
    traces.unshift({
      x: [...x, ...[...x].reverse()], y: [...ends(1), ...ends(2).reverse()], fill: "toself", mode: "lines",
      line: { width: 0 }, fillcolor: look(entry).line.color + "30", hoverinfo: "skip",
    });
  }
  return traces;
}
function points(entry, rows, estimates, digits) {
  const reach = (end) => estimates.map((each) => (each[end] === null ? 0 : Math.abs(each[end] - each[0])));
  return {
    ...look(entry), mode: "markers", orientation: "h", x: estimates.map((each) => each[0]), y: rows,
    text: estimates.map((each) => span(each, digits)), hovertemplate: "%{y}: %{text}",
    error_x: { type: "data", symmetric: false, array: reach(2), arrayminus: reach(1) },
  };
}
const rows = (names) => ({ type: "category", range: [names.length - 0.5, -0.5], tickfont: { size: 10 } });
const named = (text) => ({ title: { text } });
function swatch(parent, color, dash, shape) {
  const space = "http://www.w3.org/2000/svg";
  const svg = make(parent, "svg", "", { width: 46, height: 14, "aria-hidden": true }, space);
  make(svg, "path", "", { d: "M0 7h46", stroke: color, "stroke-width": 2, "stroke-dasharray": STROKES[dash] ?? "" }, space);
  make(svg, "text", shape, { x: 17, y: 12, fill: color, "font-size": 13 }, space);
}

const plots = data.panels.map((panel) => figure($("#curves .grid"), panel.title));
const notes = plots.map((node) => make(node.parentNode, "p", "", { class: "note" }));
function drawCurves() {
  data.panels.forEach((panel, at) => {
    plots[at].parentNode.hidden = chosen.hidden.includes(panel.title);
    if (plots[at].parentNode.hidden) return;
    const traces = shown(Object.keys(panel.curves)).flatMap((entry) => {
      const curve = panel.curves[entry];
      return line(entry, curve[chosen.axis], curve.score, 1, curve);
    });
    const lines = chosen.published && chosen.axis === "amount" ? panel.published : [];
    notes[at].textContent = lines.length ? "Published by others:" : "";
    lines.forEach(({ name, source, x, y }, index) => {
      const [color, dash] = [style(index, GREYS), style(index + 1, DASHES)];
      const hovertemplate = `%{y:.1f} at %{x:,.0f}<br>${entity(source)}`;
      traces.push({ name: entity(name), meta: "published", x, y, mode: "lines", line: { color, dash, width: 1.2 }, hovertemplate });
      swatch(notes[at], color, dash, "");
      notes[at].append(` ${name}, `);
    });
    if (lines.length) notes[at].append(`sources: ${[...new Set(lines.map((each) => each.source))].join("; ")}.`);
    const xaxis = named(AXES[chosen.axis] ?? panel.unit);
    draw(plots[at], "Learning curves of " + panel.title, traces, { uirevision: chosen.axis, xaxis, yaxis: named(panel.score) });
  });
}

const HEADINGS = ["Interquartile mean", "Probability of improvement", "Performance profile", "Score against processor time"];
const overall = data.overall.map((each) =>
  HEADINGS.map((heading) => figure($("#overall .grid"), `${heading}, ${each.tasks.length} tasks, ${each.kind}`)));
function drawOverall() {
  data.overall.forEach((each, at) => {
    const names = shown(Object.keys(each.methods));
    const against = each.methods[chosen.reference] ? chosen.reference : Object.keys(each.methods)[0];
    const others = names.filter((name) => name !== against);
    const score = named("normalised score");
    const half = { type: "line", x0: 0.5, x1: 0.5, y0: 0, y1: 1, yref: "paper", line: { dash: "dot", width: 1 } };
    const profile = { trace: { mode: "lines", hovertemplate: "%{text} above %{x:.2f}" } };
    const lines = (x, key, more) => names.flatMap((name) => line(name, x, each.methods[name][key], 3, more));
    [
      [names.map((name) => points(name, [label(name)], [each.methods[name].iqm], 3)), { xaxis: score, yaxis: rows(names) }],
      [others.map((name) => points(name, [label(name)], [each.better[name][against]], 2)),
        { xaxis: { range: [-0.02, 1.02], ...named("of being better than " + label(against)) }, yaxis: rows(others), shapes: [half] }],
      [lines(each.thresholds, "profile", profile), { xaxis: score, yaxis: named("share of runs above") }],
      [lines(each.seconds, "reached"), { xaxis: named(AXES.cpu), yaxis: score }],
    ].forEach((plot, index) => draw(overall[at][index], HEADINGS[index], ...plot));
  });
}

const forest = figure($("#differences .grid"), "On the same tasks and seeds");
function drawDifferences() {
  const against = chosen.reference;
  const turn = ([value, low, high]) => [-value, high === null ? null : -high, low === null ? null : -low];
  const lines = data.differences.filter((each) => [each.one, each.other].includes(against)).map((each) => ({
    ...each, entry: each.one === against ? each.other : each.one, task: each.task ?? "all tasks together, " + each.unit,
    gain: each.one === against ? turn(each.gain) : each.gain,
  })).filter((each) => shown([each.entry]).length && !chosen.hidden.includes(each.task));
  const tasks = [...new Set(lines.map((each) => each.task))];
  const traces = shown(entries).map((entry) => {
    const own = lines.filter((each) => each.entry === entry);
    return points(entry, own.map((each) => entity(each.task).replace("/", "/<br>")), own.map((each) => each.gain), 1);
  });
  const place = $("#differences .scroll");
  const caption = "Paired differences from " + data.labels[against];
  forest.style.height = `${110 + 12 * tasks.length * (1 + traces.length)}px`;
  draw(forest, caption, traces, { scattermode: "group", yaxis: rows(tasks), xaxis: { ...named("more than " + label(against)), zeroline: true } });
  Plotly.Plots.resize(forest);
  place.replaceChildren();
  const table = make(place, "table");
  make(table, "caption", caption);
  const head = make(make(table, "thead"), "tr");
  for (const name of ["task", "method", "pairs", "of", "difference"]) make(head, "th", name, { scope: "col" });
  for (const each of lines) {
    const row = make(table, "tr");
    make(row, "th", each.task, { scope: "row" });
    for (const text of [data.labels[each.entry], each.pairs, each.unit, span(each.gain)]) make(row, "td", text);
  }
}

// Films
const films = () => all(".films figure:not([hidden]) video");
function showFilms() {
  $(".films").replaceChildren();
  for (const { entry, address } of data.films.find((each) => each.start === chosen.start)?.films ?? []) {
    const box = make($(".films"), "figure", "", { "data-entry": entry });
    box.hidden = !shown([entry]).length;
    const attributes = { src: address, controls: "", preload: "metadata", playsinline: "", "aria-label": data.labels[entry] };
    make(box, "video", "", attributes).muted = true;
    make(box, "figcaption", data.labels[entry]);
  }
}
$("#play").onclick = () => films().forEach((video) => ((video.currentTime = 0), video.play()));
$("#pause").onclick = () => films().forEach((video) => video.pause());

// Controls
function update() {
  [drawCurves, drawOverall, drawDifferences].forEach((part) => part());
  all("tr[data-entry], figure[data-entry]").forEach((node) => (node.hidden = !shown([node.dataset.entry]).length));
  all("[data-task]").forEach((node) => (node.hidden = chosen.hidden.includes(node.dataset.task)));
}
function checkboxes(place, names, titles, list) {
  names.forEach((name, index) => {
    const item = make(place, "label");
    const box = make(item, "input", "", { type: "checkbox", value: name });
    if (list === "off") swatch(item, style(index, COLORS), style(index, DASHES), style(index, SHAPES));
    item.append(" " + titles[index]);
    box.checked = !chosen[list].includes(name);
  });
}
function options(select, names, titles, key, change) {
  names.forEach((name, index) => make(select, "option", titles[index], { value: name }));
  if (!names.includes(chosen[key])) keep({ [key]: names[0] ?? "" });
  select.value = chosen[key];
  select.onchange = () => (keep({ [key]: select.value }), change());
}
const [tasks, starts] = [data.panels.map((panel) => panel.title), data.films.map((each) => each.start)];
checkboxes($("#methods"), entries, Object.values(data.labels), "off");
checkboxes($("#tasks"), tasks, tasks, "hidden");
options($("#reference"), entries, Object.values(data.labels), "reference", update);
options($("#start"), starts, starts, "start", showFilms);
const form = $("#controls");
const [bands, published] = [$("#bands"), $("#published")];
[form.axis.value, bands.checked, published.checked] = [chosen.axis, chosen.bands, chosen.published];
form.onchange = () => {
  const [off, hidden] = ["#methods", "#tasks"].map((place) => all(place + " input:not(:checked)").map((box) => box.value));
  keep({ off, hidden, axis: form.axis.value, bands: bands.checked, published: published.checked });
  update();
};
for (const node of all("#runs details")) {
  node.open = chosen.open.includes(node.id);
  node.ontoggle = () => keep({ open: all("#runs details[open]").map((each) => each.id) });
}
for (const id of ["overall", "differences", "films"]) {
  $("#" + id).classList.toggle("empty", !data[id].length);
  $(`nav a[href="#${id}"]`).hidden = !data[id].length;
}
showFilms();
update();
const widths = (width, height) => all(".plot").forEach((node) => Plotly.relayout(node, { width: node === forest ? 2 * width : width, height: node === forest ? undefined : height, autosize: true }));
addEventListener("beforeprint", () => widths(340, 230));
addEventListener("afterprint", () => widths(undefined, undefined));

// Age, and the newest state while runs go on: from the disk there is no way to ask but to load again.
const opened = Date.now();
let touched = 0;
for (const kind of ["keydown", "pointerdown", "wheel"]) addEventListener(kind, () => (touched = Date.now()), { passive: true });
$("#reload").onclick = () => location.reload();
function tick() {
  const [now, age] = [Date.now(), Math.max(0, Date.now() - data.written)];
  const minutes = Math.floor(age / 60000);
  const old = data.live && age > Math.max(120000, 4 * data.reload);
  const going = old ? ": old, runs were going on and nothing has written it since" : ", while runs go on; it reloads by itself";
  const text = (minutes ? `${minutes} minute${minutes > 1 ? "s" : ""} ago` : "less than a minute ago") + (data.live ? going : "");
  if ($("#age").textContent !== text) $("#age").textContent = text;
  $("#age").classList.toggle("old", old);
  const busy = films().some((video) => !video.paused && !video.ended) || now - touched < Math.min(20000, data.reload);
  if (data.live && now - opened > Math.max(data.reload, age / 10) && !busy) location.reload();
}
tick();
setInterval(tick, 1000);
