// Totals over time, as far as this API process has kept them.

import { ask } from "./api.js";
import { fill, h, svg } from "./dom.js";
import { moment, span } from "./timeline.js";

const CHARTS = [
  ["free_pfs", "Whole ports free"],
  ["held_pfs", "Ports held whole"],
  ["held_vfs", "VFs held"],
  ["free_vfs", "VFs free"],
  ["waiting", "Claims waiting"],
  ["refused", "Claims refused per minute"],
];
const WIDTH = 520;
const HEIGHT = 130;
const LEFT = 52;

export class TotalsView {
  constructor(app) {
    this.app = app;
    this.list = h("div", { class: "charts" }, h("p", { class: "hint" }, "Reading …"));
    this.since = h("p", { class: "hint" });
    this.element = h("div", { class: "sheet" }, h("h1", {}, "Totals over time"), this.since, this.list);
    this.#read();
  }

  end() {
    clearTimeout(this.timer);
    this.over = true;
  }

  async #read() {
    const kept = await ask("totals");
    if (this.over) return;
    this.since.textContent = `The API process that answers keeps a number every ${kept.interval} s, for ${span(kept.interval * kept.most)} at most and not after its end.`
      + " For longer, have Prometheus keep them.";
    const charts = CHARTS.filter(([name]) => kept.samples.some((sample) => sample[name] !== null));
    fill(this.list, kept.samples.length < 2
      ? h("p", {}, "The first numbers come in a few seconds.")
      : charts.map(([name, title]) => chart(title, kept.samples.map((sample) => [Date.parse(sample.at), sample[name]]))));
    this.timer = setTimeout(() => this.#read(), kept.interval * 500);
  }
}

function chart(title, all) {
  const points = all.filter(([, value]) => value !== null);
  const [from] = points[0];
  const [to, last] = points.at(-1);
  const values = points.map(([, value]) => value);
  const least = Math.min(...values);
  const [bottom, top] = range(least, Math.max(...values));
  const x = (time) => LEFT + ((time - from) / Math.max(1, to - from)) * (WIDTH - LEFT - 8);
  const y = (value) => 8 + (1 - (value - bottom) / (top - bottom)) * (HEIGHT - 28);
  const line = points.map(([time, value], place) => `${place ? "L" : "M"}${x(time).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const area = `${line}L${x(to).toFixed(1)} ${HEIGHT - 20}L${LEFT} ${HEIGHT - 20}Z`;
  const number = (value) => Math.round(value).toLocaleString("en");
  return h("section", {}, h("h2", {}, title, h("span", { class: "now" }, number(last))),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}: now ${number(last)}, between ${number(least)} and ${number(Math.max(...values))} since ${moment(from)}` },
      [bottom, (bottom + top) / 2, top].map((value) => [
        svg("line", { x1: LEFT, x2: WIDTH - 8, y1: y(value), y2: y(value), class: "grid" }),
        svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end", class: "axis" }, number(value)),
      ]),
      svg("path", { d: area, class: "area" }), svg("path", { d: line, class: "line" }),
      svg("text", { x: LEFT, y: HEIGHT - 4, class: "axis" }, moment(from)),
      svg("text", { x: WIDTH - 8, y: HEIGHT - 4, class: "axis", "text-anchor": "end" }, moment(to))));
}

/** From where to where the axis goes: whole numbers, with a whole number between. From 0 unless that hides the changes. */
function range(least, most) {
  const from = least > most * 0.5 ? least : 0;
  const half = nice(Math.max((most - from) / 2, most * 0.02, 1));
  const bottom = Math.floor(from / half) * half;
  return [bottom, Math.max(bottom + 2 * half, Math.ceil(most / half) * half)];
}

function nice(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((each) => each * unit).find((each) => each >= value);
}
