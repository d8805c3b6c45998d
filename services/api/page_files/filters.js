// Which hosts and ports the map shows.

import { ask } from "./api.js";
import { fill, h } from "./dom.js";
import { PORT_STATUSES, statusOf } from "./model.js";

const TYPED = 300; // milliseconds
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export class Filters {
  constructor(app, changed) {
    this.app = app;
    this.changed = changed;
    this.held = null; // ids of the ports that an instance or a project has; null: all
    const select = (name, label) => h("label", {}, h("span", {}, label), h("select", { name, onchange: () => this.#take() }, h("option", { value: "" }, "any")));
    const type = (name, label, facts = {}) => h("label", {}, h("span", {}, label), h("input", {
      name, type: "text", autocomplete: "off", spellcheck: "false", ...facts,
      oninput: () => { clearTimeout(this.typed); this.typed = setTimeout(() => this.#take(), TYPED); },
    }));
    this.element = h("form", { class: "filters", "aria-label": "Filters", onsubmit: (event) => { event.preventDefault(); this.#take(); } },
      type("host", "Host"), select("alias", "Alias"), select("status", "Status"), select("numa", "NUMA node"),
      type("holder", "Instance or project"),
      this.clear = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => { this.element.reset(); this.#take(); } }, "Clear"));
    this.#options("status", Object.entries(PORT_STATUSES));
    this.wanted = {};
  }

  end() {
    clearTimeout(this.typed);
    clearInterval(this.again);
  }

  /** The fleet is known. */
  async ready() {
    const numas = new Set();
    for (const port of this.app.fleet.ports.values()) if (port.numa !== null) numas.add(port.numa);
    this.#options("numa", [...numas].sort((a, b) => a - b).map((numa) => [String(numa), String(numa)]));
    const { aliases } = await ask("aliases");
    this.app.aliases = aliases;
    this.#options("alias", aliases.map((alias) => [alias.name, alias.name]));
  }

  /** The hosts that have a port that fits. */
  hosts(all) {
    return this.isOn ? all.filter((host) => this.#fitsHost(host) && (!this.#asksForPorts || host.ports.some((port) => this.fits(port, host)))) : all;
  }

  fits(port, host) {
    const { status, numa } = this.wanted;
    return (!status || statusOf(port, host) === status)
      && (!numa || String(port.numa) === numa)
      && (!this.pools || port.pools.some((pool) => this.pools.has(pool)))
      && (!this.held || this.held.has(port.id));
  }

  /** Whether a message may change which hosts are shown. */
  mayMove(message) {
    return message.gone_hosts?.length > 0 || message.hosts.length > 0 || message.gone_ports?.length > 0 || this.#asksForPorts;
  }

  get isOn() {
    return Object.values(this.wanted).some(Boolean);
  }

  get #asksForPorts() {
    const { status, numa, alias, holder } = this.wanted;
    return Boolean(status || numa || alias || holder);
  }

  #fitsHost(host) {
    return !this.wanted.host || host.name.includes(this.wanted.host);
  }

  async #take() {
    const values = Object.fromEntries(new FormData(this.element));
    const holder = values.holder.trim();
    const isNew = holder !== (this.wanted.holder ?? "");
    this.wanted = { ...values, holder, host: values.host.trim() };
    this.clear.hidden = !this.isOn;
    const alias = this.app.aliases.find((each) => each.name === values.alias);
    this.pools = alias ? this.#poolsOf(alias) : null;
    if (!holder) this.held = null;
    else if (isNew) await this.#readHeld();
    clearInterval(this.again);
    if (holder) this.again = setInterval(() => this.#readHeld().then(this.changed), 5000);
    this.changed();
  }

  async #readHeld() {
    const { holder } = this.wanted;
    const query = UUID.test(holder) ? { instance_id: holder } : { project: holder };
    try {
      const { ports } = await ask("map/held", { query });
      if (holder === this.wanted.holder) this.held = new Set(ports);
    } catch {
      this.held = new Set();
    }
  }

  /** The pools whose devices one of the alias's alternatives takes. */
  #poolsOf(alias) {
    const fits = (pool) => alias.spec.some((spec) => Object.entries(spec).every(([key, value]) => {
      if (key === "dev_type") return pool.dev_type === value;
      if (key === "vendor_id" || key === "product_id") return pool[key] === value;
      return String(pool.tags[key] ?? "").toLowerCase() === String(value ?? "").toLowerCase();
    }));
    return new Set([...this.app.fleet.pools.values()].filter(fits).map((pool) => pool.id));
  }

  #options(name, entries) {
    const select = this.element.elements[name];
    const before = select.value;
    fill(select, h("option", { value: "" }, "any"), entries.map(([value, words]) => h("option", { value }, words)));
    select.value = before;
  }
}
