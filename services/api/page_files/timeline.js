// Who held what, as bars along time; and times in words.

import { h, svg } from "./dom.js";

const WIDTH = 440;
const LABEL = 122;
const LINE = 18;
const MOST = 24; // claims

/** A bar for each claim that held something. The same is below as a list for those who do not see bars. */
export function timeline(app, holdings) {
  if (!holdings.length) return h("p", { class: "hint" }, "Nobody, as far as it is kept.");
  const claims = byClaim(holdings);
  const now = Date.now();
  const from = Math.min(...claims.map((each) => Date.parse(each.from)));
  const margin = Math.max(now - from, 1000) * 0.02;
  const at = (time) => LABEL + ((time - from + margin) / (now - from + margin)) * (WIDTH - LABEL);
  const shown = claims.slice(0, MOST);
  const height = shown.length * LINE;
  const bars = shown.flatMap((each, line) => {
    const start = at(Date.parse(each.from));
    const end = at(each.until ? Date.parse(each.until) : now);
    return [
      svg("line", { x1: LABEL, x2: WIDTH, y1: line * LINE + LINE / 2, y2: line * LINE + LINE / 2, class: "rule" }),
      svg("text", { x: 0, y: line * LINE + 13, class: "axis mono" }, each.instance.slice(0, 8)),
      svg("text", { x: LABEL - 8, y: line * LINE + 13, class: "axis", "text-anchor": "end" }, each.words),
      svg("rect", { x: start, y: line * LINE + 3, width: Math.max(2, end - start), height: LINE - 6, rx: 1.5, class: each.until ? "past" : "present" },
        svg("title", {}, sentenceOf(each))),
    ];
  });
  return h("div", { class: "timeline" },
    svg("svg", { viewBox: `0 0 ${WIDTH} ${height + 18}`, role: "img", "aria-label": `Who held it since ${moment(new Date(from).toISOString())}; the list below says it in words` },
      bars,
      svg("text", { x: LABEL, y: height + 13, class: "axis" }, moment(new Date(from).toISOString())),
      svg("text", { x: WIDTH, y: height + 13, class: "axis", "text-anchor": "end" }, "now")),
    claims.length > MOST && h("p", { class: "hint" }, `and ${claims.length - MOST} earlier claims`),
    h("details", {}, h("summary", {}, "In words"), h("ol", { class: "changes" }, claims.slice(0, 100).map((each) => h("li", {},
      app.link(each.instance.slice(0, 8), "instance", each.instance), " held ", h("span", { class: "mono" }, each.devices), ` from ${moment(each.from)} `,
      each.until ? `to ${moment(each.until)}` : h("b", {}, `until now, for ${ago(each.from)}`))))));
}

/** Holdings of one claim at one time as one, the newest first. */
function byClaim(holdings) {
  const found = new Map();
  for (const each of holdings) {
    const key = `${each.claim_id} ${each.held_until ?? ""}`;
    const one = found.get(key) ?? { instance: each.instance_id, from: each.held_from, until: each.held_until, held: [] };
    if (each.held_from < one.from) one.from = each.held_from;
    one.held.push(each);
    found.set(key, one);
  }
  for (const one of found.values()) {
    one.held.sort((a, b) => (a.address < b.address ? -1 : 1));
    const kind = one.held[0].dev_type.replace("type-", "").replace("PCI", "device");
    one.words = one.held.length > 1 ? `${one.held.length} ${kind}s` : kind;
    one.devices = one.held.length > 3 ? `${one.held[0].address} and ${one.held.length - 1} more` : one.held.map((each) => each.address).join(" ");
  }
  return [...found.values()].sort((a, b) => Date.parse(b.from) - Date.parse(a.from));
}

const sentenceOf = (each) => `instance ${each.instance}: ${each.words}, ${moment(each.from)} to ${each.until ? moment(each.until) : "now"}`;

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
