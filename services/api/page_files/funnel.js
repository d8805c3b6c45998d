// What each filter leaves of the fleet for a request, and the hosts that come closest.

import { h } from "./dom.js";
import { short, table } from "./tables.js";

const FILTERS = {
  ids: ["Vendor and product", "have a device with these ids"],
  tags: ["Tags", "have it with these tags"],
  type: ["Type", "have it as PF, VF or other, as asked"],
  remote_managed: ["Remote managed", "have it so"],
  hosts: ["Named hosts", "are among the hosts that were named"],
  avoid_hosts: ["Excluded hosts", "are not excluded"],
  enabled: ["Not drained", "take claims"],
  alive: ["Agent reports", "have an agent that reports"],
  unreserved: ["Not reserved", "have it, and not reserved for a waiting claim"],
  available: ["Free now", "have it free"],
  together: ["All at once", "can serve the whole request"],
};
const OTHERS = { queue: "Others wait for the same", quota: "Quota used up", conflict: "The id is used", invalid: "Invalid request" };

/**
 * An explanation as a funnel: how many hosts each filter leaves, and where it ends.
 * `about`: the waiting claim that it is of. `hosts`: how many hosts were named. `when`: "now", or "then" for a claim that was refused.
 */
export function explanation(app, spec, why, { about = null, hosts = 0, when = "now" } = {}) {
  const most = Math.max(1, ...why.filters.map((each) => each.hosts));
  const stops = why.filters.find((each) => each.hosts === 0);
  const lines = [];
  let before = null;
  let idle = [];
  for (const each of why.filters) {
    const isPlain = before !== null && before.hosts === each.hosts && before.devices === each.devices && each.filter !== "together";
    const isAfter = stops && why.filters.indexOf(each) > why.filters.indexOf(stops);
    if (isPlain || isAfter) idle.push(nameOf(each));
    else {
      lines.push(...skipped(idle, false), line(each, before, most, each === stops));
      idle = [];
    }
    before = each;
  }
  lines.push(...skipped(idle, Boolean(stops)));
  return [
    h("section", { class: "verdict" },
      about && h("p", {}, "Claim ", app.link(about.claim_id, "claim", about.claim_id), ` waits at position ${about.position}.`),
      h("h2", {}, h("span", { class: "mono" }, spec), hosts === 1 ? " on this host" : hosts > 1 ? ` on these ${hosts} hosts` : "", when === "then" ? " was refused: what each filter left then" : why.served ? " would be served now" : " would be refused now"),
      why.nearest_miss && h("p", {}, `${why.nearest_miss[0].toUpperCase()}${why.nearest_miss.slice(1)}.`),
      h("ol", { class: "funnel" }, lines)),
    why.misses.length > 0 && h("section", {},
      h("h2", {}, "What comes closest"),
      h("p", { class: "hint" }, when === "then" ? "Devices that would have done, and the instances that stood in the way. The fewest come first." : "Devices that would do, and the instances that stand in the way. The fewest come first."),
      table(["Host", "Device", "Type", "Status", "Instances in the way"], why.misses.map((miss) => [
        app.link(miss.host, "host", miss.host), h("span", { class: "mono" }, miss.address), miss.dev_type, miss.status,
        h("span", {}, miss.held_by.slice(0, 4).flatMap((id) => [app.link(short(id), "instance", id), " "]), miss.held_by.length > 4 ? `and ${miss.held_by.length - 4} more` : ""),
      ]))),
  ];
}

/** The name of a filter, or of another reason of a refusal. */
export const filterName = (name) => FILTERS[name]?.[0] ?? OTHERS[name] ?? name;

const nameOf = (each) => (FILTERS[each.filter] ?? [each.filter])[0];

function line(each, before, most, stops) {
  const lost = before === null ? 0 : before.hosts - each.hosts;
  const bar = h("div", { class: "funnel-bar" });
  bar.style.width = `${(each.hosts / most) * 100}%`;
  return h("li", { class: stops ? "stops" : null },
    h("div", { class: "funnel-name" }, h("b", {}, nameOf(each)), h("small", {}, (FILTERS[each.filter] ?? ["", ""])[1])),
    h("div", { class: "funnel-track", "aria-hidden": "true" }, bar),
    h("div", { class: "funnel-count" }, h("b", {}, number(each.hosts)), each.hosts === 1 ? " host" : " hosts",
      h("small", {}, `${number(each.devices)} ${each.devices === 1 ? "device" : "devices"}`)),
    h("div", { class: "funnel-lost" }, lost > 0 && `\u2212${number(lost)} ${lost === 1 ? "host" : "hosts"}`));
}

function skipped(names, isAfter) {
  if (!names.length) return [];
  return [h("li", { class: "skipped" }, isAfter ? `Not reached: ${names.join(", ")}` : `No host lost by: ${names.join(", ")}`)];
}

const number = (value) => value.toLocaleString("en");
