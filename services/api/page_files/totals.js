// Totals over time, as far as this API process has kept them.

import { ask } from "./api.js";
import { fill, h, svg } from "./dom.js";
import { filterName } from "./funnel.js";
import { table } from "./tables.js";
import { moment, span } from "./timeline.js";

const CHARTS = [
  ["free_pfs", "Whole ports free"],
  ["held_pfs", "Ports held whole"],
  ["held_vfs", "VFs held"],
  ["free_vfs", "VFs free"],
  ["waiting", "Claims waiting"],
];
const WIDTH = 520;
const HEIGHT = 130;
const LEFT = 52;

export class TotalsView {
  constructor(app) {
    this.app = app;
    this.list = h("div", { class: "charts" }, h("p", { class: "hint" }, "Reading …"));
    this.refused = h("div", { class: "below" });
    this.since = h("p", { class: "hint" });
    this.element = h("div", { class: "sheet" }, h("h1", {}, "Totals over time"), this.since, this.list, this.refused);
    this.#read();
  }

  end() {
    clearTimeout(this.timer);
    this.over = true;
  }

  async #read() {
    const [kept, summary] = await Promise.all([ask("totals"), ask("summary")]);
    if (this.over) return;
    this.since.textContent = `The API process that answers keeps a number every ${kept.interval} s, for ${span(kept.interval * kept.most)} at most and not after its end.`
      + " Refusals are kept in the database. For longer, have Prometheus keep them.";
    fill(this.list, kept.samples.length < 2
      ? h("p", {}, "The first numbers come in a few seconds.")
      : CHARTS.map(([name, title]) => chart(title, kept.samples.map((sample) => [Date.parse(sample.at), sample[name]]))),
    chart("Claims refused per minute", byMinute(summary.refused_by_minute)));
    fill(this.refused, summary.refused.length > 0 && h("section", {}, h("h2", {}, "Refused in the last hour"),
      table(["Asked for", "Filter that left nothing", "Claims", "Now"], summary.refused.map((kind) => [
        h("span", { class: "mono" }, kind.alias ?? "several aliases, or none"), filterName(kind.reason), kind.refused.toLocaleString("en"),
        kind.alias ? h("a", { href: this.app.href("why", `${kind.alias}:1`), "aria-label": `Ask for ${kind.alias}` }, "Why not?") : "",
      ]), "Refused in the last hour")));
    this.timer = setTimeout(() => this.#read(), kept.interval * 500);
  }
}

/** Each minute of the last hour, those without refusals too. */
function byMinute(rows) {
  const found = new Map(rows.map((row) => [Date.parse(row.minute), Object.values(row.refused).reduce((sum, each) => sum + each, 0)]));
  const now = Math.floor(Date.now() / 60_000) * 60_000;
  return Array.from({ length: 60 }, (_, place) => now - (59 - place) * 60_000).map((minute) => [minute, found.get(minute) ?? 0]);
}

function chart(title, points) {
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
