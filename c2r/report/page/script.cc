// The script of the report's page: the heat map of collaboration, and saving the data.
#include "c2r/report/page/page.h"

namespace c2r {

std::string_view page_script() {
  return R"js("use strict";
const report = JSON.parse(document.getElementById("report-data").textContent);
const numExperts = report.trace.num_experts;
const byId = (id) => document.getElementById(id);

// The counts of a layer, num_experts x num_experts, from their packed upper triangle.
const unpacked = new Map();
function countsOf(layer) {
  if (unpacked.has(layer)) return unpacked.get(layer);
  const bytes = atob(report.layers[layer].coactivation);
  const counts = new Float64Array(numExperts * numExperts);
  let at = 0;
  for (let a = 0; a < numExperts; ++a) {
    for (let b = a; b < numExperts; ++b) {
      let value = 0, scale = 1, byte;
      do {
        byte = bytes.charCodeAt(at++);
        value += (byte & 127) * scale;
        scale *= 128;
      } while (byte & 128);
      counts[a * numExperts + b] = counts[b * numExperts + a] = value;
    }
  }
  unpacked.clear();  // one layer at a time, so that memory does not grow
  unpacked.set(layer, counts);
  return counts;
}

function orderOf(layer, how) {
  const { order, rank_of_expert: rank } = report.layers[layer];
  if (how === "id") return order.map((_, e) => e);
  if (how === "together") return order;
  const place = new Map(order.map((e, at) => [e, at]));
  return [...order].sort((a, b) => rank[a] - rank[b] || place.get(a) - place.get(b));
}

// What a cell shows: tokens, their share of the row's, or how many times as many as by chance.
function valueOf(counts, rowSums, tokens, how, a, b) {
  const count = counts[a * numExperts + b];
  if (how === "raw") return count;
  if (how === "share") return rowSums[a] ? count / rowSums[a] : 0;
  const expected = (counts[a * numExperts + a] * counts[b * numExperts + b]) / tokens;
  return expected ? count / expected : 0;
}

const canvas = byId("heat-map"), slider = byId("heat-layer");
const cursor = { row: -1, column: -1 };
let shown = null;  // what is drawn now

function describe() {
  const { row, column } = cursor;
  if (!shown || row < 0) return;
  const { layer, order, counts } = shown;
  const a = order[row], b = order[column], rank = report.layers[layer].rank_of_expert;
  const count = counts[a * numExperts + b];
  const value = shown.value(a, b);
  byId("heat-cell").textContent = a === b
    ? `expert ${a} (rank ${rank[a]}): chosen by ${count} tokens`
    : `experts ${a} (rank ${rank[a]}) and ${b} (rank ${rank[b]}): ${count} tokens chose both` +
      (shown.how === "raw" ? "" : `, ${shown.how} ${value.toFixed(3)}`);
}

function draw() {
  const layer = Number(slider.value), how = byId("heat-values").value;
  const counts = countsOf(layer), order = orderOf(layer, byId("heat-order").value);
  const rank = report.layers[layer].rank_of_expert;
  const rowSums = order.map(() => 0);
  for (let a = 0; a < numExperts; ++a) {
    for (let b = 0; b < numExperts; ++b) if (a !== b) rowSums[a] += counts[a * numExperts + b];
  }
  const value = (a, b) => valueOf(counts, rowSums, report.trace.num_tokens, how, a, b);
  shown = { layer, order, counts, value, how };
  let most = 0;
  for (const a of order) for (const b of order) if (a !== b) most = Math.max(most, value(a, b));
  byId("heat-layer-name").textContent = report.layers[layer].layer_index;
  const text = (id) => byId(id).selectedOptions[0].textContent;
  byId("heat-shown").textContent = `Layer ${report.layers[layer].layer_index}: ${text("heat-values")}; experts ` +
    `${text("heat-order")}. The darkest cell is ${how === "raw" ? most : most.toFixed(3)}.`;
  const context = canvas.getContext("2d"), size = canvas.width / numExperts;
  const style = getComputedStyle(document.documentElement);
  context.fillStyle = style.getPropertyValue("--back");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = style.getPropertyValue("--after");
  order.forEach((a, row) => order.forEach((b, column) => {
    if (a === b || !most) return;
    context.globalAlpha = Math.pow(Math.min(1, value(a, b) / most), 0.6);
    context.fillRect(column * size, row * size, size, size);
  }));
  context.globalAlpha = 1;
  if (byId("heat-order").value === "rank") outlineRanks(context, order, rank, size);
  drawLoads(order, counts, style);
  describe();
  fillTable(order, counts);
}

function drawLoads(order, counts, style) {
  const loads = byId("heat-loads"), context = loads.getContext("2d"), width = loads.width / numExperts;
  const values = order.map((e) => counts[e * numExperts + e]), most = Math.max(1, ...values);
  const y = (value) => loads.height * (1 - value / most);
  context.fillStyle = style.getPropertyValue("--back");
  context.fillRect(0, 0, loads.width, loads.height);
  context.fillStyle = style.getPropertyValue("--after");
  values.forEach((value, at) => context.fillRect(at * width, y(value), 0.9 * width, loads.height));
  const mean = y(values.reduce((sum, value) => sum + value, 0) / numExperts);
  context.strokeStyle = style.getPropertyValue("--bound");
  context.setLineDash([6, 4]);
  context.beginPath();
  context.moveTo(0, mean);
  context.lineTo(loads.width, mean);
  context.stroke();
}

function outlineRanks(context, order, rank, size) {
  context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--bound");
  context.lineWidth = 2;
  let begin = 0;
  for (let end = 1; end <= order.length; ++end) {
    if (end < order.length && rank[order[end]] === rank[order[begin]]) continue;
    context.strokeRect(begin * size, begin * size, (end - begin) * size, (end - begin) * size);
    begin = end;
  }
}

function fillTable(order, counts) {
  const table = document.createElement("table");
  const add = (cells, kind) => {
    const row = table.insertRow();
    for (const cell of cells) row.appendChild(document.createElement(kind)).textContent = cell;
  };
  add(["expert", "rank", "tokens", "works most with (tokens)"], "th");
  for (const a of order) {
    const best = order.filter((b) => b !== a)
      .sort((b, c) => counts[a * numExperts + c] - counts[a * numExperts + b] || b - c).slice(0, 5);
    add([a, report.layers[shown.layer].rank_of_expert[a], counts[a * numExperts + a],
      best.map((b) => `${b} (${counts[a * numExperts + b]})`).join(", ")], "td");
  }
  byId("heat-table").replaceChildren(table);
}

slider.max = report.layers.length - 1;
for (const id of ["heat-layer", "heat-values", "heat-order"]) byId(id).addEventListener("input", draw);
canvas.addEventListener("pointermove", (event) => {
  const box = canvas.getBoundingClientRect();
  const cell = (at, length) => Math.min(numExperts - 1, Math.max(0, Math.floor((at / length) * numExperts)));
  cursor.column = cell(event.clientX - box.left, box.width);
  cursor.row = cell(event.clientY - box.top, box.height);
  describe();
});
canvas.addEventListener("keydown", (event) => {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!step) return;
  event.preventDefault();
  const clamp = (value) => Math.min(numExperts - 1, Math.max(0, value));
  cursor.row = clamp(cursor.row + step[0]);
  cursor.column = clamp(cursor.column + step[1]);
  describe();
});
for (const media of ["(prefers-color-scheme: dark)", "print"]) matchMedia(media).addEventListener("change", draw);
byId("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([byId("report-data").textContent], { type: "application/json" }));
  link.download = "report.json";
  link.click();
});
draw();
)js";
}

}  // namespace c2r
