// Beside the map: one host, port, claim or instance, with who held what, and since when.

import { ask, part } from "./api.js";
import { actionsFor } from "./actions.js";
import { fill, h } from "./dom.js";
import { devicesGrid } from "./grid.js";
import { heldVfs, PORT_STATUSES, statusOf } from "./model.js";
import { refusals, refusedTable } from "./refused.js";
import { facts, mono, short, table } from "./tables.js";
import { ago, moment, timeline } from "./timeline.js";

const AGAIN = 400; // milliseconds between two questions about one thing that changes

export class Detail {
  constructor(app, close) {
    this.app = app;
    this.body = h("div", { class: "detail-body" });
    this.element = h("aside", { class: "detail", hidden: true, "aria-label": "Details", tabindex: -1 },
      h("button", { type: "button", class: "close", "aria-label": "Close the details", onclick: close }, "×"), this.body);
    this.element.onkeydown = (event) => { if (event.key === "Escape") close(); };
    this.subject = null;
  }

  get isOpen() {
    return !this.element.hidden;
  }

  end() {
    this.subject = null;
    clearTimeout(this.timer);
  }

  /** Whoever opens it with a key goes on in it. */
  takeFocus() {
    this.wantsFocus = true;
  }

  show(parts, host, port) {
    const key = parts.join("/");
    this.element.hidden = !parts.length;
    if (this.wantsFocus) this.element.focus();
    this.wantsFocus = false;
    if (!parts.length) {
      this.subject = null;
      fill(this.body);
      return;
    }
    if (this.subject?.key === key) return;
    const [kind, name, address] = parts;
    if ((kind === "host" && !host) || (kind === "port" && !port)) {
      this.subject = null;
      fill(this.body, h("p", { class: "wrong", role: "alert" }, host ? `Host ${name} has no port ${address}.` : `There is no host ${name}.`));
      return;
    }
    this.subject = { key, kind, name, host, port };
    fill(this.body, h("p", { class: "hint" }, "Reading …"));
    this.#read(this.subject);
  }

  /** Read again what has changed. */
  changed(ports, message) {
    const subject = this.subject;
    if (!subject) return;
    const concerns = subject.kind === "instance" || (message.claims ?? []).includes(subject.name)
      || (subject.port ? ports.has(subject.port.id) : subject.host?.ports.some((port) => ports.has(port.id)))
      || message.hosts.some(([id]) => id === subject.host?.id);
    if (!concerns) return;
    this.timer ??= setTimeout(() => { this.timer = null; if (this.subject) this.#read(this.subject); }, AGAIN);
  }

  async #read(subject) {
    try {
      const shown = await { port: () => this.#port(subject), host: () => this.#host(subject), claim: () => this.#claim(subject), instance: () => this.#instance(subject) }[subject.kind]();
      if (subject === this.subject) fill(this.body, shown);
    } catch (error) {
      if (subject === this.subject) fill(this.body, h("p", { class: "wrong", role: "alert" }, error.message));
    }
  }

  async #port({ host: { name }, port: { address } }) {
    const host = this.app.fleet.host(name);
    const port = host.ports.find((each) => each.address === address);
    const [history, { devices }] = await Promise.all([
      ask(`hosts/${part(name)}/history`, { query: { address, limit: 200 } }),
      ask("devices", { query: { host: name, limit: 1000 } }),
    ]);
    const own = devices.filter((device) => device.port === address);
    const [first] = own;
    return [
      this.#head("Port", address, [this.app.link(name, "host", name)]),
      this.#state(PORT_STATUSES[statusOf(port, host)], port, host),
      facts([
        ["Card", first && `${first.vendor_id}:${first.product_id}`], ["NUMA node", port.numa],
        ["VFs", port.vfs ? `${heldVfs(port)} held, ${port.counts.f ?? 0} free, of ${port.vfs}` : null],
        ["Reserved for", port.notes.reserved && this.app.link(port.notes.reserved, "claim", port.notes.reserved)],
        ["Drained", port.notes.drained], ["Not usable", port.notes.unusable], ["Missing", port.notes.missing && "its host does not report it now"],
      ]),
      actionsFor.port(this.app, host, port),
      port.vfs > 0 && !port.claim && devicesGrid(own.filter((device) => device.address !== address)),
      h("h3", {}, "Who holds it now"),
      this.#holders(own, history.holdings),
      h("h3", {}, "Who held it"),
      timeline(this.app, history.holdings),
      changes(history.changes),
    ];
  }

  /** A row for each claim that holds something. */
  #holders(devices, holdings) {
    const claims = new Map();
    for (const device of devices) {
      if (device.claim_id) claims.set(device.claim_id, [...(claims.get(device.claim_id) ?? []), device]);
    }
    if (!claims.size) return h("p", { class: "hint" }, "Nobody.");
    const since = (id) => holdings.find((each) => each.claim_id === id && each.held_until === null)?.held_from;
    return table(["Instance", "Claim", "Devices", "Status", "Held for"], [...claims].map(([id, held]) => [
      this.app.link(short(held[0].instance_id), "instance", held[0].instance_id), this.app.link(short(id), "claim", id),
      held.length > 1 ? h("span", { title: held.map((device) => device.address).join(" ") }, `${held.length} VFs`) : mono(held[0].address),
      held[0].status, since(id) ? h("time", { datetime: since(id), title: moment(since(id)) }, ago(since(id))) : "",
    ]), "Who holds it now");
  }

  async #host({ name }) {
    const host = this.app.fleet.host(name);
    const [facts_, history] = await Promise.all([ask(`hosts/${part(name)}`), ask(`hosts/${part(name)}/history`, { query: { limit: 200 } })]);
    return [
      this.#head("Host", name, []),
      this.#state(facts_.drained_reason !== null ? "drained" : facts_.is_silent ? "silent" : "takes claims"),
      facts([
        ["Last report", `${ago(new Date(Date.now() - facts_.agent_silent_for * 1000).toISOString())} ago`],
        ["Drained", facts_.drained_reason], ["Live claims", facts_.live_claims],
        ["PFs", `${facts_.pfs_available} free, ${facts_.pfs_held} held whole`],
        ["VFs", `${facts_.vfs_available} free, ${facts_.vfs_held} held`],
      ]),
      actionsFor.host(this.app, facts_),
      this.app.aliases.length > 0 && h("p", {}, h("a", { href: this.app.href("why", `${this.app.aliases[0].name}:1`, name) }, "Why not here?")),
      h("h3", {}, "Ports"),
      table(["Port", "NUMA", "State", "VFs held"], (host?.ports ?? []).map((port) => [
        this.app.link(port.address, "port", name, port.address), port.numa ?? "", PORT_STATUSES[statusOf(port, host)], port.vfs ? `${heldVfs(port)} of ${port.vfs}` : "",
      ])),
      h("h3", {}, "Who held what"),
      timeline(this.app, history.holdings),
      changes(history.changes),
    ];
  }

  async #claim({ name }) {
    const [claim, history] = await Promise.all([ask(`claims/${part(name)}`), ask(`claims/${part(name)}/history`, { query: { limit: 200 } })]);
    return [
      this.#head("Claim", claim.claim_id, [this.app.link(claim.instance_id, "instance", claim.instance_id)]),
      this.#state(claim.status),
      facts([
        ["Host", claim.host && this.app.link(claim.host, "host", claim.host)], ["Made", moment(claim.created_at)],
        ["Changed", `${ago(claim.updated_at)} ago`], ["Why", claim.reason],
        ["Expires", claim.guest_deadline && moment(claim.guest_deadline)],
      ]),
      actionsFor.claim(this.app, claim, history),
      claim.status === "waiting" && h("p", {}, h("a", { href: this.app.href("why", claim.claim_id) }, "Why does it wait?")),
      h("h3", {}, "Devices"),
      claim.devices.length ? table(["Device", "Type"], claim.devices.map((device) => [mono(device.address), device.dev_type])) : h("p", { class: "hint" }, "None."),
      h("h3", {}, "What happened"),
      timeline(this.app, history.holdings),
      changes(history.changes),
    ];
  }

  async #instance({ name }) {
    const every = ["waiting", "claimed", "prepared", "allocated", "releasing", "released", "failed", "expired"];
    const [{ claims }, refused] = await Promise.all([
      ask("claims", { query: { instance_id: name, status: every, limit: 100 } }), refusals({ instance_id: name, limit: 20 }),
    ]);
    return [
      this.#head("Instance", name, []),
      !claims.length && h("p", { class: "hint" }, "It has no claim."),
      claims.length > 0 && table(["Claim", "Status", "Host", "Devices", "Since"], claims.map((claim) => [
        this.app.link(short(claim.claim_id), "claim", claim.claim_id), claim.status,
        claim.host ? this.app.link(claim.host, "host", claim.host) : "", claim.devices.length, ago(claim.updated_at),
      ])),
      refused.length > 0 && [h("h3", {}, "Refused lately"), refusedTable(this.app, refused)],
    ];
  }

  #head(kind, name, more) {
    return h("header", {}, h("p", { class: "kind" }, kind), h("h2", { class: "mono" }, name), more.length > 0 && h("p", {}, more));
  }

  #state(words, port, host) {
    const status = port ? statusOf(port, host) : words;
    return h("p", { class: "status-line" }, h("span", { class: `badge ${status}` }, words));
  }
}

function changes(rows) {
  if (!rows.length) return null;
  return [h("h3", {}, "What changed"), h("ol", { class: "changes" }, rows.map((row) => h("li", {},
    h("time", { datetime: row.at }, moment(row.at)), " ", row.address && mono(`${row.address} `),
    h("b", {}, row.to_status), `: ${row.cause}`)))];
}
