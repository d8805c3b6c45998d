// Who held what, as bars along time; and times in words.

import { h, svg } from "./dom.js";

const WIDTH = 440;
const LABEL = 92;
const LINE = 18;
const MOST = 24; // devices

/** Bars of holdings, a line for each device. The same is below as a list for those who do not see bars. */
export function timeline(app, holdings) {
  if (!holdings.length) return h("p", { class: "hint" }, "Nobody, as far as it is kept.");
  const now = Date.now();
  const from = Math.min(...holdings.map((each) => Date.parse(each.held_from)));
  const span = Math.max(now - from, 1000);
  const at = (time) => LABEL + ((time - from) / span) * (WIDTH - LABEL - 2);
  const devices = [...new Set(holdings.map((each) => each.address))].sort();
  const shown = devices.slice(0, MOST);
  const bars = shown.flatMap((address, line) => [
    svg("text", { x: 0, y: line * LINE + 12, class: "axis mono" }, address),
    ...holdings.filter((each) => each.address === address).map((each) => {
      const start = at(Date.parse(each.held_from));
      const end = at(each.held_until ? Date.parse(each.held_until) : now);
      return svg("rect", { x: start, y: line * LINE + 2, width: Math.max(2, end - start), height: LINE - 6, class: each.held_until ? "past" : "present" },
        svg("title", {}, `${each.instance_id}, ${moment(each.held_from)} to ${each.held_until ? moment(each.held_until) : "now"}`));
    }),
  ]);
  const height = shown.length * LINE;
  return h("div", { class: "timeline" },
    svg("svg", { viewBox: `0 0 ${WIDTH} ${height + 16}`, role: "img", "aria-label": `Who held it since ${moment(holdings.at(-1).held_from)}; the list below says it in words` },
      svg("line", { x1: LABEL, x2: WIDTH, y1: height, y2: height, class: "rule" }), bars,
      svg("text", { x: LABEL, y: height + 12, class: "axis" }, moment(new Date(from).toISOString())),
      svg("text", { x: WIDTH, y: height + 12, class: "axis", "text-anchor": "end" }, "now")),
    devices.length > MOST && h("p", { class: "hint" }, `and ${devices.length - MOST} more devices`),
    h("ol", { class: "changes" }, holdings.slice(0, 50).map((each) => h("li", {},
      h("span", { class: "mono" }, `${each.address} `), app.link(each.instance_id.slice(0, 8), "instance", each.instance_id),
      ` from ${moment(each.held_from)} `, each.held_until ? `to ${moment(each.held_until)}` : h("b", {}, `until now, for ${ago(each.held_from)}`)))));
}

/** A time, short: today's without the day. */
export function moment(text) {
  const time = new Date(text);
  const clock = time.toLocaleTimeString("en-GB");
  return time.toDateString() === new Date().toDateString() ? clock : `${time.toLocaleDateString("sv-SE")} ${clock}`;
}

/** How long ago, in two units. */
export function ago(text) {
  return span((Date.now() - Date.parse(text)) / 1000);
}

/** Seconds in words. */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}
