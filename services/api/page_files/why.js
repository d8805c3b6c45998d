// "Why not?": what each filter leaves of the fleet for a request, and the hosts that come closest.

import { ask } from "./api.js";
import { short, table } from "./detail.js";
import { command, fill, h, quoted } from "./dom.js";

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

export class WhyView {
  constructor(app) {
    this.app = app;
    this.answer = h("div", { "aria-live": "polite" });
    this.rows = h("div", { class: "requests" });
    this.form = h("form", { class: "ask", onsubmit: (event) => { event.preventDefault(); this.#go(); } },
      this.rows,
      h("div", { class: "row" },
        h("label", {}, h("span", {}, "Only on hosts"), h("input", { name: "hosts", placeholder: "any", autocomplete: "off", spellcheck: "false" })),
        h("label", {}, h("span", {}, "NUMA nodes of the instance"), h("input", { name: "numa", placeholder: "none", autocomplete: "off", pattern: "[0-9, ]*" })),
        h("button", { type: "button", onclick: () => this.#add() }, "Add an alias"),
        h("button", { class: "primary" }, "Ask")));
    this.element = h("div", { class: "sheet" },
      h("h1", {}, "Why not?"),
      h("p", { class: "hint" }, "Ask whether a request would be served now. It reserves nothing."),
      h("section", {}, this.form), this.answer);
    this.ready = this.#begin();
  }

  async #begin() {
    const { aliases } = await ask("aliases");
    this.aliases = aliases;
    this.#add();
  }

  /** `why/nic-vf:2,nic-pf:1` asks at once, `why/nic-vf:2/HOST,HOST` on these hosts; `why/CLAIM` as a waiting claim. */
  async show([, what, hosts = ""]) {
    await this.ready;
    if (!what || `${what}/${hosts}` === this.asked) return;
    this.asked = `${what}/${hosts}`;
    this.form.elements.hosts.value = hosts.replaceAll(",", ", ");
    let spec = what;
    let about = null;
    if (!what.includes(":")) {
      const { claims: [claim] } = await ask("waiting", { query: { claim_id: what } });
      if (!claim) {
        fill(this.answer, h("p", { class: "wrong" }, `Claim ${what} does not wait.`));
        return;
      }
      about = claim;
      spec = claim.alias;
    }
    fill(this.rows);
    for (const each of (spec ?? "").split(",").filter(Boolean)) this.#add(...each.trim().split(":"));
    if (!this.rows.children.length) this.#add();
    await this.#ask(about);
  }

  #add(alias, count = "1") {
    const known = this.aliases.some((each) => each.name === alias);
    const row = h("div", { class: "row" },
      h("label", {}, h("span", {}, "Alias"), h("select", { name: "alias" },
        alias && !known && h("option", { value: alias, selected: true }, alias),
        this.aliases.map((each) => h("option", { value: each.name, selected: each.name === alias }, each.name)))),
      h("label", {}, h("span", {}, "Count"), h("input", { name: "count", type: "number", min: 1, max: 256, value: count, required: true })),
      this.rows.children.length > 0 && h("button", { type: "button", class: "quiet", onclick: () => row.remove() }, "Remove"));
    this.rows.append(row);
  }

  #go() {
    const spec = [...this.rows.children].map((row) => `${row.querySelector("select").value}:${row.querySelector("input").value}`).join(",");
    const hosts = this.#list("hosts").join(",");
    this.asked = `${spec}/${hosts}`;
    this.app.go("why", spec, ...(hosts ? [hosts] : []));
    this.#ask(null);
  }

  #list(name) {
    return this.form.elements[name].value.split(/[\s,]+/).filter(Boolean);
  }

  async #ask(about) {
    const data = new FormData(this.form);
    const counts = data.getAll("count");
    const spec = data.getAll("alias").map((alias, place) => `${alias}:${counts[place]}`).join(",");
    const hosts = this.#list("hosts");
    const cells = this.#list("numa").map(Number);
    try {
      const why = await ask("explain", { body: {
        extra_specs: { "pci_passthrough:alias": spec }, hosts: hosts.length ? hosts : null, numa_cells: cells,
      } });
      const words = [`portclaim explain`, ...data.getAll("alias").map((alias, place) => `--alias ${quoted(`${alias}:${counts[place]}`)}`),
        ...hosts.map((host) => `--host ${quoted(host)}`)].join(" ");
      fill(this.answer, explanation(this.app, spec, why, about, hosts.length), h("section", {}, h("h2", {}, "The same on the command line"), command(words)));
    } catch (error) {
      fill(this.answer, h("p", { class: "wrong", role: "alert" }, error.message));
    }
  }
}

/** An explanation as a funnel: how many hosts each filter leaves, and where it ends. */
export function explanation(app, spec, why, about = null, hosts = 0) {
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
      h("h2", {}, h("span", { class: "mono" }, spec), hosts === 1 ? " on this host" : hosts > 1 ? ` on these ${hosts} hosts` : "", why.served ? " would be served now" : " would be refused now"),
      why.nearest_miss && h("p", {}, `${why.nearest_miss[0].toUpperCase()}${why.nearest_miss.slice(1)}.`),
      h("ol", { class: "funnel" }, lines)),
    why.misses.length > 0 && h("section", {},
      h("h2", {}, "What comes closest"),
      h("p", { class: "hint" }, "Devices that would do, and the instances that stand in the way. The fewest come first."),
      table(["Host", "Device", "Type", "Status", "Instances in the way"], why.misses.map((miss) => [
        app.link(miss.host, "host", miss.host), h("span", { class: "mono" }, miss.address), miss.dev_type, miss.status,
        h("span", {}, miss.held_by.slice(0, 4).flatMap((id) => [app.link(short(id), "instance", id), " "]), miss.held_by.length > 4 ? `and ${miss.held_by.length - 4} more` : ""),
      ]))),
  ];
}

/** The name of a filter, or of another reason of a refusal. */
export const filterName = (name) => (FILTERS[name] ?? [name])[0];

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
