"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
// Okabe and Ito's colours; in black and white dashes and markers tell the methods apart.
const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933", "#332288"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "triangle-down", "star", "cross"];
const SHAPES = ["●", "■", "◆", "▲", "✖", "▼", "★", "✚"];
const STROKES = { solid: "", dash: "6 3", dot: "2 3", dashdot: "6 3 2 3", longdash: "10 4", longdashdot: "10 3 2 3" };
const GREYS = ["#333", "#666", "#888", "#aaa"];
const AXES = { wall: "wall-clock seconds of training", cpu: "processor seconds of training" };
const entries = Object.keys(data.labels);
const $ = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];
const style = (index, list) => list[index % list.length];
const entity = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;"); // plotly reads markup in texts
const number = (value, digits = 1) => (value === null ? "-" : value.toFixed(digits));
const rows = (names) => ({ type: "category", range: [names.length - 0.5, -0.5], tickfont: { size: 10 } });
const span = ([value, low, high], digits = 1) =>
  number(value, digits) + (low === null ? "" : ` [${number(low, digits)}, ${number(high, digits)}]`);

function make(parent, tag, text = "", attributes = {}) {
  const node = parent.appendChild(document.createElement(tag));
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
function draw(node, traces, layout, label) {
  const both = { automargin: true, gridcolor: "#ddd", zeroline: false, showline: true, linecolor: "#555" };
  const whole = {
    margin: { l: 50, r: 12, t: 28, b: 40 }, font: { size: 12, color: "#111" }, hovermode: "closest", showlegend: false, ...layout,
    xaxis: { ...both, ...layout.xaxis }, yaxis: { ...both, ...layout.yaxis },
  };
  node.setAttribute("aria-label", label + ": keys plus, minus, arrows and 0 zoom and move. The numbers are in the tables.");
  return Plotly.react(node, traces, whole, {
    responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"],
  });
}
function figure(parent, heading) {
  const box = make(parent, "div");
  make(box, "h3", heading);
  const node = make(box, "div", "", { class: "plot", tabindex: 0, role: "img" });
  node.addEventListener("keydown", (event) => byKey(node, event));
  return node;
}
function byKey(node, event) {
  const move = { "+": [0.1, -0.1], "-": [-0.125, 0.125], ArrowLeft: [-0.1, -0.1], ArrowRight: [0.1, 0.1] }[event.key];
  if (!move && event.key !== "0") return;
  event.preventDefault();
  const [low, high] = node._fullLayout.xaxis.range;
  const change = move ? { "xaxis.range": move.map((part, end) => [low, high][end] + part * (high - low)) } : { "xaxis.autorange": true, "yaxis.autorange": true };
  Plotly.relayout(node, change);
}
function look(entry) {
  const index = entries.indexOf(entry);
  const [color, dash] = [style(index, COLORS), style(index, DASHES)];
  return { name: entity(data.labels[entry]), line: { color, dash, width: 2 }, marker: { color, symbol: style(index, SYMBOLS), size: 7 } };
}
function line(entry, x, estimates, digits, seeds) {
  const y = estimates.map((each) => each[0]);
  const text = estimates.map((each, at) => span(each, digits) + (seeds ? `, ${seeds[at]} seed${seeds[at] > 1 ? "s" : ""}` : ""));
  const traces = [{ ...look(entry), mode: "lines+markers", x, y, text, hovertemplate: "%{text} at %{x:,.0f}", meta: entry }];
  if (chosen.bands && estimates.some((each) => each[1] !== null)) {
    const ends = (end) => estimates.map((each) => each[end] ?? each[0]);
    traces.unshift({
      x: [...x, ...[...x].reverse()], y: [...ends(1), ...ends(2).reverse()], fill: "toself", mode: "lines",
      line: { width: 0 }, fillcolor: look(entry).line.color + "30", hoverinfo: "skip", showlegend: false,
    });
  }
  return traces;
}
const plots = data.panels.map((panel) => figure($("#curves .grid"), panel.title));
const notes = plots.map((node) => make(node.parentNode, "p", "", { class: "note" }));
function drawCurves() {
  data.panels.forEach((panel, at) => {
    plots[at].parentNode.hidden = chosen.hidden.includes(panel.title);
    if (plots[at].parentNode.hidden) return;
    const traces = shown(Object.keys(panel.curves)).flatMap((entry) => {
      const curve = panel.curves[entry];
      return line(entry, curve[chosen.axis], curve.score, 1, curve.seeds);
    });
    const lines = chosen.published && chosen.axis === "amount" ? panel.published : [];
    lines.forEach((each, index) => traces.push({
      name: entity(each.name), x: each.x, y: each.y, mode: "lines", meta: "published",
      line: { color: style(index, GREYS), dash: style(index + 1, DASHES), width: 1.2 },
      hovertemplate: `%{y:.1f} at %{x:,.0f}<br>${entity(each.source)}`,
    }));
    notes[at].textContent = lines.length ? "Grey, published by others (point at one for its source): " : "";
    lines.forEach((each, index) => {
      const name = make(notes[at], "span", ` ${each.name} `, { title: each.source });
      swatch(name, style(index, GREYS), style(index + 1, DASHES), "");
    });
    const layout = {
      uirevision: chosen.axis,
      xaxis: { title: { text: AXES[chosen.axis] ?? panel.unit } }, yaxis: { title: { text: panel.score } },
    };
    draw(plots[at], traces, layout, "Learning curves of " + panel.title);
  });
}
function points(entry, names, estimates, digits) {
  const reach = (end) => estimates.map((each) => (each[end] === null ? 0 : Math.abs(each[end] - each[0])));
  return {
    ...look(entry), mode: "markers", orientation: "h", x: estimates.map((each) => each[0]), y: names, meta: entry,
    marker: { ...look(entry).marker, size: 10 }, text: estimates.map((each) => span(each, digits)),
    hovertemplate: "%{y}: %{text}", error_x: { type: "data", symmetric: false, array: reach(2), arrayminus: reach(1) },
  };
}
const overall = data.overall.map((each) => {
  const grid = $("#overall .grid");
  const [iqm, better, profile, reached] = ["Interquartile mean", "Probability of improvement", "Performance profile", "Score against processor time"]
    .map((heading) => figure(grid, `${heading}, ${each.tasks.length} tasks, ${each.kind}`));
  return { each, iqm, better, profile, reached };
});
function drawOverall() {
  for (const { each, iqm, better, profile, reached } of overall) {
    const names = shown(Object.keys(each.methods));
    const label = (name) => entity(data.labels[name]);
    const score = { title: { text: "normalised score" } };
    const lines = (x, key) => names.flatMap((name) => line(name, x, each.methods[name][key], 3));
    draw(iqm, names.map((name) => points(name, [label(name)], [each.methods[name].iqm], 3)), { xaxis: score, yaxis: rows(names) }, "Interquartile means");
    const against = each.methods[chosen.reference] ? chosen.reference : Object.keys(each.methods)[0];
    const others = names.filter((name) => name !== against);
    draw(better, others.map((name) => points(name, [label(name)], [each.better[name][against]], 2)), {
      xaxis: { range: [-0.02, 1.02], title: { text: "of being better than " + label(against) } }, yaxis: rows(others),
      shapes: [{ type: "line", x0: 0.5, x1: 0.5, y0: 0, y1: 1, yref: "paper", line: { dash: "dot", width: 1 } }],
    }, "Probability of improvement over " + data.labels[against]);
    draw(profile, lines(each.thresholds, "profile").map((trace) => ({ ...trace, mode: "lines", hovertemplate: "%{text} above %{x:.2f}" })), { xaxis: score, yaxis: { title: { text: "share of runs above" } } }, "Performance profiles");
    draw(reached, lines(each.seconds, "reached"), { xaxis: { title: { text: AXES.cpu } }, yaxis: score }, "Score against processor time");
  }
}

// Differences
const forest = figure($("#differences .grid"), "Newest scores on the same tasks and seeds");
function drawDifferences() {
  const against = chosen.reference;
  const turn = ([value, low, high]) => [-value, high === null ? null : -high, low === null ? null : -low];
  const lines = data.differences.filter((each) => each.one === against || each.other === against).map((each) => ({
    ...each, entry: each.one === against ? each.other : each.one, task: each.task ?? `all tasks together, ${each.unit}`,
    gain: each.one === against ? turn(each.gain) : each.gain,
  })).filter((each) => shown([each.entry]).length && !chosen.hidden.includes(each.task));
  const traces = shown(entries).map((entry) => {
    const own = lines.filter((each) => each.entry === entry);
    return points(entry, own.map((each) => entity(each.task).replace("/", "/<br>")), own.map((each) => each.gain), 1);
  });
  const tasks = [...new Set(lines.map((each) => each.task))];
  forest.style.height = `${110 + 12 * tasks.length * (1 + traces.length)}px`;
  draw(forest, traces, {
    scattermode: "group", yaxis: rows(tasks),
    xaxis: { title: { text: "more than " + entity(data.labels[against] ?? "") }, zeroline: true },
  }, "Paired differences from " + data.labels[against]);
  Plotly.Plots.resize(forest);
  const place = $("#differences .scroll");
  place.replaceChildren();
  const table = make(place, "table");
  make(table, "caption", `Paired differences from ${data.labels[against]}`);
  const head = make(make(table, "thead"), "tr");
  for (const name of ["task", "method", "pairs", "of", "difference"]) make(head, "th", name, { scope: "col" });
  const body = make(table, "tbody");
  for (const each of lines) {
    const row = make(body, "tr");
    make(row, "th", each.task, { scope: "row" });
    for (const text of [data.labels[each.entry], each.pairs, each.unit, span(each.gain)]) make(row, "td", text);
  }
}

// Films
function showFilms() {
  const place = $(".films");
  place.replaceChildren();
  for (const film of data.films.find((each) => each.start === chosen.start)?.films ?? []) {
    const box = make(place, "figure", "", { "data-entry": film.entry });
    box.hidden = !shown([film.entry]).length;
    const video = make(box, "video", "", { src: film.address, controls: "", preload: "metadata", playsinline: "", "aria-label": data.labels[film.entry] });
    video.muted = true;
    make(box, "figcaption", data.labels[film.entry]);
  }
}
const films = () => all(".films figure:not([hidden]) video");
$("#play").onclick = () => films().forEach((video) => ((video.currentTime = 0), video.play()));
$("#pause").onclick = () => films().forEach((video) => video.pause());

// Controls
function swatch(label, color, dash, shape) {
  const svg = label.insertBefore(document.createElementNS("http://www.w3.org/2000/svg", "svg"), label.lastChild);
  const put = (tag, attributes, text = "") => {
    const node = svg.appendChild(document.createElementNS(svg.namespaceURI, tag));
    Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
    node.textContent = text;
  };
  for (const [name, value] of Object.entries({ width: 46, height: 14, "aria-hidden": true })) svg.setAttribute(name, value);
  put("path", { d: "M0 7h46", stroke: color, "stroke-width": 2, "stroke-dasharray": STROKES[dash] });
  put("text", { x: 17, y: 12, fill: color, "font-size": 13 }, shape);
}
function checkboxes(place, names, titles, list) {
  const boxes = names.map((name, index) => {
    const label = make(place, "label");
    const box = make(label, "input", "", { type: "checkbox", value: name });
    label.append(" " + titles[index]);
    box.checked = !chosen[list].includes(name);
    return box;
  });
  place.onchange = () => {
    keep({ [list]: boxes.filter((box) => !box.checked).map((box) => box.value) });
    update();
  };
}
function options(select, names, titles, key, change) {
  names.forEach((name, index) => make(select, "option", titles[index], { value: name }));
  if (!names.includes(chosen[key])) keep({ [key]: names[0] ?? "" });
  select.value = chosen[key];
  select.onchange = () => (keep({ [key]: select.value }), change());
}
function update() {
  drawCurves();
  drawOverall();
  drawDifferences();
  all("tr[data-entry], figure[data-entry]").forEach((node) => (node.hidden = !shown([node.dataset.entry]).length));
  all("[data-task]").forEach((node) => (node.hidden = chosen.hidden.includes(node.dataset.task)));
}
checkboxes($("#methods"), entries, Object.values(data.labels), "off");
all("#methods label").forEach((label, at) => swatch(label, style(at, COLORS), style(at, DASHES), style(at, SHAPES)));
const tasks = data.panels.map((panel) => panel.title);
checkboxes($("#tasks"), tasks, tasks, "hidden");
for (const box of all("#axis input")) {
  box.checked = box.value === chosen.axis;
  box.onchange = () => (keep({ axis: box.value }), drawCurves());
}
for (const name of ["bands", "published"]) {
  $("#" + name).checked = chosen[name];
  $("#" + name).onchange = (event) => (keep({ [name]: event.target.checked }), update());
}
options($("#reference"), entries, Object.values(data.labels), "reference", update);
const starts = data.films.map((each) => each.start);
options($("#start"), starts, starts, "start", showFilms);
for (const node of all("#runs details")) {
  node.open = chosen.open.includes(node.id);
  node.ontoggle = () => keep({ open: all("#runs details[open]").map((each) => each.id) });
}
const counts = { overall: data.overall, differences: data.differences, films: data.films, curves: data.panels };
for (const [id, list] of Object.entries(counts)) $("#" + id).classList.toggle("empty", !list.length);
showFilms();
update();

// Age, and the newest state while runs go on: from the disk there is no way to ask but to load again.
addEventListener("beforeprint", () => all(".plot").forEach((node) => Plotly.relayout(node, { width: node === forest ? 690 : 340, height: node === forest ? node.offsetHeight : 230 })));
addEventListener("afterprint", () => all(".plot").forEach((node) => Plotly.relayout(node, { width: null, height: null, autosize: true })));
const opened = Date.now();
let touched = 0;
for (const kind of ["keydown", "pointerdown", "wheel"]) addEventListener(kind, () => (touched = Date.now()), { passive: true });
$("#reload").onclick = () => location.reload();
function tick() {
  const now = Date.now();
  const minutes = Math.max(0, Math.floor((now - data.written) / 60000));
  const old = data.live && now - data.written > Math.max(120000, 4 * data.reload);
  const going = data.live ? (old ? ": old, runs were going on and nothing has written it since" : ", while runs go on; it reloads by itself") : "";
  const text = (minutes < 1 ? "less than a minute ago" : `${minutes.toLocaleString("en")} minute${minutes > 1 ? "s" : ""} ago`) + going;
  if ($("#age").textContent !== text) $("#age").textContent = text;
  $("#age").classList.toggle("old", old);
  const busy = films().some((video) => !video.paused && !video.ended) || now - touched < Math.min(20000, data.reload);
  if (data.live && now - opened > Math.max(data.reload, (now - data.written) / 10) && !busy) location.reload();
}
tick();
setInterval(tick, 1000);
