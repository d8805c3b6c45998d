// The fleet as a map, with filters, a legend, and beside it what is known of one port, host or claim.

import { Canvas } from "./canvas.js";
import { Detail } from "./detail.js";
import { fill, h } from "./dom.js";
import { Filters } from "./filters.js";
import { LEVELS } from "./layout.js";
import { legend } from "./legend.js";

const ZOOM = "portclaim-zoom";

export class MapView {
  constructor(app) {
    this.app = app;
    this.fleet = app.fleet;
    this.level = sessionStorage.getItem(ZOOM) === null ? null : Number(sessionStorage.getItem(ZOOM));
    this.figures = h("dl", { class: "figures", "aria-label": "The fleet in numbers" });
    this.filters = new Filters(app, () => this.refilter());
    this.none = h("p", { class: "none", hidden: true }, "No host fits.");
    this.canvas = new Canvas({
      level: () => this.level ?? 0,
      hosts: () => this.hosts,
      fits: (port, host) => this.filters.fits(port, host),
      open: (host, port, byKey) => this.#open(host, port, byKey),
      zoom: (step) => this.zoom((this.level ?? 0) + step),
      recoloured: () => this.#showLevels(),
    });
    this.levels = h("div", { class: "zoom", role: "group", "aria-label": "Zoom" });
    this.legend = h("div", { class: "legend-place" });
    this.detail = new Detail(app, () => app.go("map"));
    this.element = h("div", { class: "map" },
      h("h1", { class: "visually-hidden" }, "Map of the fleet"),
      h("div", { class: "map-main" },
        this.figures,
        h("div", { class: "tools" }, this.filters.element, this.levels),
        this.canvas.whole, this.none, this.legend),
      this.detail.element);
    this.hosts = [];
    this.stop = this.fleet.listen((message, changed) => this.#changed(message, changed));
    if (this.fleet.version) this.#begin();
  }

  end() {
    this.stop();
    this.canvas.end();
    this.detail.end();
    this.filters.end();
  }

  /** Show what the address names beside the map. */
  show(parts) {
    if (!this.fleet.version) return;
    const [kind, name, address] = parts;
    const host = name && (kind === "host" || kind === "port") ? this.fleet.host(name) : null;
    const port = host && address ? host.ports.find((each) => each.address === address) : null;
    this.canvas.select(host ?? null, port ?? null);
    this.detail.show(kind === "map" ? [] : parts, host, port);
    this.element.classList.toggle("with-detail", this.detail.isOpen);
  }

  zoom(level) {
    this.level = Math.min(LEVELS.length - 1, Math.max(0, level));
    sessionStorage.setItem(ZOOM, String(this.level));
    this.#showLevels();
    this.canvas.relayout();
    this.canvas.select(this.canvas.selected.host, this.canvas.selected.port);
  }

  refilter() {
    this.hosts = this.filters.hosts(this.fleet.ordered);
    this.none.hidden = this.hosts.length > 0 || !this.fleet.version;
    this.canvas.relayout();
    this.#count();
  }

  #begin() {
    if (this.level === null) { // what a screen can hold
      const hosts = this.fleet.hosts.size;
      this.level = hosts <= 12 ? 2 : hosts <= 120 ? 1 : 0;
    }
    this.#showLevels();
    this.filters.ready();
    this.refilter();
  }

  #changed(message, changed) {
    if (message.whole) this.#begin();
    else if (this.filters.mayMove(message)) this.refilter();
    else {
      this.canvas.draw();
      this.#count();
    }
    this.detail.changed(changed, message);
  }

  #open(host, port, byKey) {
    if (byKey) this.detail.takeFocus();
    if (port) this.app.go("port", host.name, port.address);
    else this.app.go("host", host.name);
  }

  #showLevels() {
    const button = (words, level, facts) => h("button", { type: "button", ...facts, onclick: () => this.zoom(level) }, words);
    fill(this.levels, h("span", { class: "hint" }, "Zoom"), LEVELS.map((each, place) => button(each.name, place, {
      "aria-pressed": String(place === this.level), title: each.about,
    })));
    fill(this.legend, legend(this.level));
  }

  #count() {
    const now = performance.now();
    if (this.counted && now - this.counted < 250) { // a hundred claims a second are no hundred counts a second
      this.later ??= setTimeout(() => { this.later = null; this.#count(); }, 250);
      return;
    }
    this.counted = now;
    const totals = this.fleet.totals();
    const figure = (name, value, more) => h("div", {}, h("dt", {}, name), h("dd", {}, value, more && h("small", {}, ` ${more}`)));
    const number = (value) => value.toLocaleString("en");
    const aside = [totals.silent && `${totals.silent} silent`, totals.drained && `${totals.drained} drained`].filter(Boolean).join(", ");
    const shown = this.hosts.length === totals.hosts ? number(totals.hosts) : `${number(this.hosts.length)} of ${number(totals.hosts)}`;
    fill(this.figures,
      figure("Hosts", shown, aside),
      figure("Whole ports free", number(totals.whole), `of ${number(totals.ports)}`),
      figure("Ports held whole", number(totals.taken)),
      figure("VFs free", number(totals.free), `of ${number(totals.vfs)}`),
      figure("VFs held", number(totals.held)));
    this.canvas.element.setAttribute("aria-label",
      `Map of the fleet: ${shown} hosts, ${totals.whole} of ${totals.ports} ports free as a whole, ${totals.held} of ${totals.vfs} VFs held`);
  }
}
