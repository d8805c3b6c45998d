// The map's canvas: it scrolls by itself, draws what is on the screen, and is used with the mouse or the keys.

import { h, say } from "./dom.js";
import { Layout } from "./layout.js";
import { sentence } from "./model.js";
import { cut, paintBar, paintCells, paintPort, readColours, text } from "./painter.js";

const HELP = "Arrow keys go from port to port. Enter shows the port. Plus and minus change the zoom.";

/** `facts`: level(), hosts(), fits(port, host), open(host, port, byKey), zoom(step), recoloured(). */
export class Canvas {
  constructor(facts) {
    this.facts = facts;
    this.canvas = h("canvas", { class: "map-canvas", "aria-hidden": "true" });
    this.spacer = h("div", { class: "map-spacer" });
    this.tip = h("div", { class: "tip", hidden: true });
    this.element = h("div", {
      class: "map-scroll", tabindex: 0, role: "application", "aria-roledescription": "map",
      "aria-label": "Map of the fleet", "aria-describedby": "map-help",
      onscroll: () => this.draw(), onkeydown: (event) => this.#key(event),
      onclick: (event) => this.#click(event), onmousemove: (event) => this.#hover(event),
      onmouseleave: () => { this.tip.hidden = true; },
    }, h("div", { class: "map-sticky" }, this.canvas), this.spacer);
    this.whole = h("div", { class: "map-frame" }, this.element, this.tip, h("p", { id: "map-help", class: "visually-hidden" }, HELP));
    this.selected = { host: null, port: null };
    this.colours = readColours();
    this.observer = new ResizeObserver(() => this.relayout());
    this.observer.observe(this.element);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.recolour = () => { this.colours = readColours(); this.draw(); this.facts.recoloured(); };
    this.scheme.addEventListener("change", this.recolour);
  }

  end() {
    this.observer.disconnect();
    this.scheme.removeEventListener("change", this.recolour);
  }

  /** Place the hosts anew: other hosts, another level, another width. */
  relayout() {
    const width = this.element.clientWidth;
    if (!width) return;
    this.layout = new Layout(this.facts.hosts(), this.facts.level(), width - 2);
    this.spacer.style.height = `${this.layout.height}px`;
    this.draw();
  }

  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (this.layout) this.#paint();
    });
  }

  /** Select a port, or a host without a port, and bring it on the screen. */
  select(host, port) {
    this.selected = { host, port };
    const box = host && this.layout?.box(host.id);
    if (box) {
      const { scrollTop, clientHeight } = this.element;
      if (box.y < scrollTop) this.element.scrollTop = box.y - 8;
      else if (box.y + box.h > scrollTop + clientHeight) this.element.scrollTop = box.y + box.h - clientHeight + 8;
    }
    this.draw();
  }

  #paint() {
    const { clientWidth: width, clientHeight: height, scrollTop } = this.element;
    const ratio = devicePixelRatio || 1;
    if (this.canvas.width !== width * ratio || this.canvas.height !== height * ratio) {
      this.canvas.width = width * ratio;
      this.canvas.height = height * ratio;
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.translate(1, 1 - scrollTop);
    for (const row of this.layout.between(scrollTop, scrollTop + height)) {
      row.hosts.forEach((host) => this.#paintHost(context, host));
    }
  }

  #paintHost(context, host) {
    const { colours, layout } = this;
    const box = layout.box(host.id);
    context.save();
    context.translate(box.x, box.y);
    if (layout.level > 0) {
      context.fillStyle = colours.surface;
      context.fillRect(0, 0, box.w, box.h);
      context.strokeStyle = colours.line;
      context.strokeRect(0.5, 0.5, box.w - 1, box.h - 1);
      this.#paintName(context, host, box);
    } else if (host.silent || host.drained !== null) {
      context.strokeStyle = host.silent ? colours.trouble : colours.drained;
      context.strokeRect(0.5, 0.5, box.w - 1, box.h - 1);
    }
    for (const each of layout.ports(host)) {
      context.globalAlpha = this.facts.fits(each.port, host) ? 1 : 0.15;
      if (layout.level === 0) paintPort(context, colours, each.port, host, each);
      else if (layout.level === 1) paintBar(context, colours, each.port, host, each, (port) => shorten(port.address));
      else paintCells(context, colours, each.port, each, layout.vf);
      context.globalAlpha = 1;
      if (this.selected.port?.id === each.port.id) this.#frame(context, each, 2);
    }
    if (this.selected.host?.id === host.id && !this.selected.port) this.#frame(context, { x: 0, y: 0, w: box.w, h: box.h }, 0);
    context.restore();
  }

  #paintName(context, host, box) {
    const { colours } = this;
    const font = "600 12px system-ui, sans-serif";
    const state = host.drained !== null ? "drained" : host.silent ? "silent" : "";
    const width = state ? box.w - 70 : box.w - 16;
    text(context, cut(context, host.name, width, font), 8, 17, colours.text, font);
    if (state) text(context, state, box.w - 8, 17, host.silent ? colours.trouble : colours.muted, "600 11px system-ui, sans-serif", "right");
  }

  #frame(context, { x, y, w, h: height }, out) {
    context.strokeStyle = this.colours.select;
    context.lineWidth = 2;
    context.strokeRect(x - out, y - out, w + 2 * out, height + 2 * out);
    context.lineWidth = 1;
  }

  #found(event) {
    const at = this.element.getBoundingClientRect();
    return this.layout?.at(event.clientX - at.left - 1, event.clientY - at.top - 1 + this.element.scrollTop);
  }

  #click(event) {
    const found = this.#found(event);
    if (!found) return;
    const port = found.port ?? (this.layout.level === 0 ? found.host.ports[0] : null);
    this.select(found.host, port);
    this.facts.open(found.host, port);
  }

  #hover(event) {
    const found = this.#found(event);
    this.tip.hidden = !found;
    this.element.classList.toggle("over", Boolean(found));
    if (!found) return;
    const { host, port } = found;
    this.tip.textContent = port ? sentence(port, host) : host.name;
    const at = this.whole.getBoundingClientRect();
    const left = Math.min(event.clientX - at.left + 14, at.width - this.tip.offsetWidth - 4);
    this.tip.style.left = `${Math.max(0, left)}px`;
    this.tip.style.top = `${event.clientY - at.top + 16}px`;
  }

  #key(event) {
    const step = { "+": 1, "=": 1, "-": -1 }[event.key];
    if (step && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.facts.zoom(step);
      return;
    }
    if (event.key === "Enter" && this.selected.host) {
      event.preventDefault();
      this.facts.open(this.selected.host, this.selected.port, true);
      return;
    }
    const move = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1], Home: [-Infinity, 0], End: [Infinity, 0] }[event.key];
    if (!move || !this.layout?.hosts.length) return;
    event.preventDefault();
    const next = this.#neighbour(...move);
    this.select(next.host, next.port);
    say(next.port ? sentence(next.port, next.host) : next.host.name);
  }

  /** Sideways is the next port in the order of the hosts; up and down the next line of hosts. */
  #neighbour(along, down) {
    const { hosts, columns } = this.layout;
    const flat = (place, port) => ({ host: hosts[place], port: hosts[place].ports[port] ?? null });
    if (along === Infinity) return flat(hosts.length - 1, hosts.at(-1).ports.length - 1);
    if (along === -Infinity || !this.selected.host || !this.layout.place.has(this.selected.host.id)) return flat(0, 0);
    const at = this.layout.place.get(this.selected.host.id);
    const place = at.row * columns + at.column;
    const port = Math.max(0, this.selected.host.ports.findIndex((each) => each.id === this.selected.port?.id));
    if (down) {
      const other = Math.min(hosts.length - 1, Math.max(0, place + down * columns));
      return flat(other, Math.min(port, hosts[other].ports.length - 1));
    }
    if (hosts[place].ports[port + along]) return flat(place, port + along);
    const other = Math.min(hosts.length - 1, Math.max(0, place + along));
    if (other === place) return flat(place, port);
    return flat(other, along > 0 ? 0 : hosts[other].ports.length - 1);
  }
}

/** An address without the domain that nearly all have. */
const shorten = (address) => address.replace(/^0000:/, "");
