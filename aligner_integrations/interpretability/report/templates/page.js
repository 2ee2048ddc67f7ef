"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const NS = "http://www.w3.org/2000/svg";
const tip = document.getElementById("tip");
const slider = document.getElementById("layer");
const which = document.getElementById("which");

function make(parent, name, attributes = {}, text) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}
function start(id, width, height, label) {
  const place = document.getElementById(id);
  place.replaceChildren();
  return make(place, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
}
function tell(element, text) {
  element.dataset.tip = text;
}
document.addEventListener("pointermove", (event) => {
  const text = event.target.dataset && event.target.dataset.tip;
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - box.width - 8)}px`;
  tip.style.top = `${Math.max(8, event.clientY - box.height - 10)}px`;
});
const percent = (value) => `${(100 * value).toFixed(0)}%`;
const signed = (value, digits = 2) => (value >= 0 ? "+" : "\u2212") + Math.abs(value).toFixed(digits);
const mix = (end, share) => `color-mix(in srgb, rgb(var(--${end})) ${(100 * share).toFixed(1)}%, rgb(var(--pale)))`;
const diverging = (value) => mix(value < 0 ? "down" : "up", Math.min(1, Math.abs(value) / data.limit));
const rising = (value) => mix("strong", Math.max(0, Math.min(1, (value - 0.5) / 0.5)));

function heat(id, title, grid, { colour, say, top = 20, first = 0, columns, mark, label, height = 330, tilt = false }) {
  const width = 480, left = tilt ? 60 : 34, bottom = tilt ? 80 : 34;
  const svg = start(id, width, height, label);
  make(svg, "text", { x: left, y: 13, class: "title" }, title);
  const across = columns.length, w = (width - left - 4) / across, h = (height - top - bottom) / grid.length;
  grid.forEach((row, layer) => row.forEach((value, column) => {
    const y = top + (grid.length - 1 - layer) * h;
    const cell = make(svg, "rect", { x: left + column * w, y, width: w + 0.3, height: h + 0.3, class: "cell" });
    cell.style.fill = value === null ? "var(--empty)" : colour(value);
    if (value !== null) tell(cell, say(layer + first, column, value));
  }));
  for (let layer = 0; layer < data.layers; layer += Math.max(1, Math.ceil(data.layers / 7)))
    make(svg, "text", { x: left - 5, y: top + (grid.length - 0.5 - (layer - first)) * h + 4, "text-anchor": "end" }, layer);
  columns.forEach((name, column) => {
    if (!name) return;
    const x = left + (column + 0.5) * w, y = height - bottom + 13;
    const text = make(svg, "text", { x, y, "text-anchor": tilt ? "end" : "middle" }, name);
    if (tilt) text.setAttribute("transform", `rotate(-38 ${x} ${y})`);
  });
  if (mark !== undefined && mark - first >= 0)
    make(svg, "rect", { x: left, y: top + (grid.length - 1 - (mark - first)) * h, width: w * across, height: h, class: "row" });
}

function lines(id, title, series, { x, low, high, format, unit, mark, spans = [], height = 250, width = 960, say }) {
  const left = 44, right = 12, top = 34, bottom = 34;
  const svg = start(id, width, height, title);
  const px = (value) => left + ((value - x[0]) / (x[x.length - 1] - x[0] || 1)) * (width - left - right);
  const py = (value) => top + (1 - (value - low) / (high - low || 1)) * (height - top - bottom);
  for (const [from, to] of spans) make(svg, "rect", { x: px(from), y: top, width: Math.max(0, px(to) - px(from)), height: height - top - bottom, class: "broken" });
  for (let step = 0; step <= 4; step++) {
    const value = low + (step / 4) * (high - low);
    make(svg, "line", { x1: left, x2: width - right, y1: py(value), y2: py(value), class: "axis" });
    make(svg, "text", { x: left - 6, y: py(value) + 4, "text-anchor": "end" }, format(value));
  }
  const every = Math.max(1, Math.ceil(x.length / 14));
  x.forEach((value, index) => {
    if (index % every === 0) make(svg, "text", { x: px(value), y: height - bottom + 15, "text-anchor": "middle" }, Math.round(value * 100) / 100);
  });
  make(svg, "text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, unit);
  let at = left;
  for (const one of series) {
    if (one.bandLow) {
      const points = [...one.bandHigh.map((v, i) => [x[i], v]), ...one.bandLow.map((v, i) => [x[i], v]).reverse()];
      const band = make(svg, "polygon", { points: points.map(([a, b]) => `${px(a)},${py(b)}`).join(" "), opacity: 0.13 });
      band.style.fill = one.colour;
    }
    const known = one.values.map((v, i) => [x[i], v]).filter(([, v]) => v !== null && v !== undefined);
    const path = make(svg, "polyline", { points: known.map(([a, b]) => `${px(a)},${py(b)}`).join(" "), fill: "none", "stroke-width": one.dashed ? 1 : 1.8 });
    path.style.stroke = one.colour;
    if (one.dashed) path.setAttribute("stroke-dasharray", "4 4");
    if (!one.dashed) for (const [a, b] of known) {
      const dot = make(svg, "circle", { cx: px(a), cy: py(b), r: 3 });
      dot.style.fill = one.colour;
      const zone = make(svg, "circle", { cx: px(a), cy: py(b), r: 8, fill: "transparent" });
      tell(zone, `${one.name}\n${say(a)}: ${one.say ? one.say(b) : format(b)}`);
    }
    if (!one.dashed) {
      const text = make(svg, "text", { x: at + 14, y: 22 }, one.name);
      const key = make(svg, "rect", { x: at, y: 14, width: 10, height: 10 });
      key.style.fill = one.colour;
      at += 30 + Math.max(text.getComputedTextLength ? text.getComputedTextLength() : 0, 6 * one.name.length * 0.9);
    }
  }
  if (mark !== undefined) {
    const line = make(svg, "line", { x1: px(mark), x2: px(mark), y1: top, y2: height - bottom, "stroke-width": 1.2 });
    line.style.stroke = "var(--ink)";
  }
}

const COLOURS = { pca: "var(--correct)", mean: "var(--copy)", probe: "var(--other)" };
const span = (count) => [...Array(count).keys()];

function drawLat() {
  const layer = Number(slider.value), shown = data.lat[Number(which.value)];
  for (const [name, title] of [["correct", "Correction is written"], ["copy", "Answer is copied"]]) {
    const one = shown[name], grid = one.scores.slice(1), width = grid[0].length;
    const n = one.counts ? ` (n = ${one.counts[0]})` : "";
    const columns = span(width).map((t) => (one.tokens && width <= 20 ? "" : t === 0 || (t + 1) % 5 === 0 ? t + 1 : ""));
    heat(`lat-${name}`, title + n, grid, {
      colour: diverging, columns: one.tokens ? columns.map((c, t) => (t === 0 || (t + 1) % 5 === 0 ? t + 1 : "")) : columns, mark: layer,
      label: `${title}: layer by output token`,
      say: (l, t, v) => `layer ${l}, output token ${t + 1}` + (one.tokens ? ` \u201c${one.tokens[t] ?? ""}\u201d` : "") + `\n${signed(v)}` + (one.counts ? `, n = ${one.counts[t]}` : ""),
    });
  }
  const series = [["correct", "correction is written", "var(--correct)"], ["copy", "answer is copied", "var(--copy)"]].map(([key, name, colour]) => ({
    name, colour, values: shown[key].scores[layer + 1], say: (v) => signed(v),
  }));
  const all = series.flatMap((one) => one.values).filter((v) => v !== null);
  const most = Math.max(1.2, ...all.map(Math.abs));
  lines("tokens", `Layer ${layer}`, series, { x: span(Math.max(...series.map((s) => s.values.length))).map((t) => t + 1), low: -most, high: most, format: (v) => signed(v, 1), unit: "output token that is chosen", say: (t) => `layer ${layer}, token ${t}` });
}
function drawScale() {
  const svg = start("scale", 352, 30, "Colour scale");
  for (let i = 0; i < 64; i++) {
    const value = (i / 31.5 - 1) * data.limit;
    const cell = make(svg, "rect", { x: 5.5 * i, y: 0, width: 5.8, height: 10 });
    cell.style.fill = diverging(value);
  }
  make(svg, "text", { x: 0, y: 24 }, `copy, ${signed(-data.limit, 1)}`);
  make(svg, "text", { x: 352, y: 24, "text-anchor": "end" }, `correct, ${signed(data.limit, 1)}`);
}
function drawLayers() {
  const layer = Number(slider.value);
  document.getElementById("shown").textContent = layer;
  const accuracies = data.same.length ? data.same : data.accuracies;
  const series = accuracies.flatMap((one) => [
    { name: data.names[one.method], colour: COLOURS[one.method], values: one.values, bandLow: one.low, bandHigh: one.high, say: percent },
    ...(one.shuffled ? [{ name: "shuffled", colour: COLOURS[one.method], values: one.shuffled, dashed: true }] : []),
  ]);
  lines("accuracy", "Held-out accuracy", series, { x: span(data.layers + 1).map((l) => l - 1), low: 0.2, high: 1, format: percent, unit: `decoder layer (\u22121: what goes into the first); n = ${accuracies[0].pairs} pairs`, mark: layer, say: (l) => `layer ${l}` });
  heat("positions", `Held-out accuracy, ${data.positions[0].pairs} pairs`, span(data.layers + 1).map((l) => data.positions.map((one) => one.values[l])), {
    colour: rising, first: -1, columns: data.positions.map((one) => one.position), mark: layer, label: "Accuracy by layer and place", height: 360, tilt: true,
    say: (l, p, v) => `${data.positions[p].position}, layer ${l}\n${percent(v)} (${percent(data.positions[p].low[l + 1])} to ${percent(data.positions[p].high[l + 1])})`,
  });
  if (Object.keys(data.attention).length) {
    const shares = Object.entries(data.attention).flatMap(([name, one]) => {
      const colour = `var(--${name})`;
      return [
        { name: `answer to ${name} (n = ${one.cases})`, colour, values: one.decision, say: (v) => `${(100 * v).toFixed(1)}%` },
        { name: "even", colour, values: one.decision.map(() => one.expected), dashed: true },
      ];
    });
    const most = Math.max(...shares.flatMap((s) => s.values));
    lines("attention", "Attention to the answer", shares, { x: span(data.layers), low: 0, high: Math.ceil(most * 10) / 10, format: percent, unit: "decoder layer", mark: layer, say: (l) => `layer ${l}` });
  }
}
function drawCurve() {
  const curve = data.control.curve, x = curve.map((p) => p.coefficient), [low, high] = data.control.fluent_coefficients;
  const common = { x, spans: [[x[0], low], [high, x[x.length - 1]]], unit: "coefficient (class distances)", width: 480, height: 270, low: 0, high: 1, say: (c) => `coefficient ${signed(c)}` };
  const line = data.control.fluent_line;
  const inside = x.map((c) => (c >= low && c <= high && line ? line.intercept + line.slope * c : null));
  lines("ratio", "Levenshtein ratio", [
    { name: "mean Levenshtein ratio", colour: "var(--ink)", values: curve.map((p) => p.similarity), say: (v) => `${v.toFixed(3)}, perplexity ${curve[curve.findIndex((p) => p.similarity === v)].perplexity.toFixed(2)}` },
    { name: "line", colour: "var(--correct)", values: inside, dashed: true },
  ], { ...common, format: (v) => v.toFixed(2) });
  lines("rates", "Answers changed", [
    { name: "bad answers changed", colour: "var(--correct)", values: curve.map((p) => p.changed_bad), say: percent },
    { name: "good answers changed", colour: "var(--copy)", values: curve.map((p) => p.changed_good), say: percent },
  ], { ...common, format: percent });
}
data.lat.forEach((one, index) => {
  const option = document.createElement("option");
  option.value = index;
  option.textContent = index ? one.name : `Mean of ${one.correct.counts[0]} pairs`;
  which.append(option);
});
document.getElementById("knobs").hidden = false;
slider.addEventListener("input", () => { drawLat(); drawLayers(); });
which.addEventListener("change", drawLat);
drawScale();
drawLat();
drawLayers();
if (data.control) drawCurve();
