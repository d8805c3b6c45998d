// Where each host and port is on the map, for each zoom level. Lengths in CSS pixels.

/** The zoom levels, the smallest first. */
export const LEVELS = [
  { name: "Ports", about: "a cell for each port, filled as its VFs are held" },
  { name: "Shares", about: "a bar for each port" },
  { name: "VFs", about: "a cell for each VF" },
];

const GAP = 8;
const CELL = 11; // of a port
const VF = 9; // a VF's cell with its gap, at least
const LARGEST_VF = 14;
const PER_LINE = 32; // VFs
const LABEL = 96; // a port's address

const SIZES = [
  {
    width: (most) => Math.max(2, Math.ceil(Math.sqrt(most))) * CELL + 5,
    height: (host, most) => Math.ceil(Math.max(host.ports.length, most) / Math.max(2, Math.ceil(Math.sqrt(most)))) * CELL + 5,
    gap: 3,
  },
  { width: () => 196, height: (host) => 26 + host.ports.length * 17 + 4, gap: GAP },
  {
    width: (_most, vfs) => LABEL + 12 + Math.min(PER_LINE, Math.max(8, vfs)) * VF + 8,
    height: (host, _most, vf) => 28 + host.ports.reduce((sum, port) => sum + portHeight(port, vf), 0) + 4,
    gap: GAP,
  },
];

const portHeight = (port, vf) => Math.max(1, Math.ceil(port.vfs / PER_LINE)) * vf + 9;

/** Rows of tiles, so that only those on the screen are drawn. */
export class Layout {
  constructor(hosts, level, width) {
    const size = SIZES[level];
    this.level = level;
    this.mostPorts = hosts.reduce((most, host) => Math.max(most, host.ports.length), 1);
    const vfs = level === 2 ? hosts.reduce((most, host) => host.ports.reduce((m, p) => Math.max(m, p.vfs), most), 1) : 1;
    this.tile = size.width(this.mostPorts, vfs);
    this.columns = Math.max(1, Math.floor((width + size.gap) / (this.tile + size.gap)));
    this.vf = VF;
    if (level > 0) { // use the whole width
      const rest = width - this.columns * this.tile - (this.columns - 1) * size.gap;
      const more = Math.max(0, Math.floor(rest / this.columns));
      const columns = Math.min(PER_LINE, Math.max(8, vfs));
      if (level === 2) this.vf = Math.min(LARGEST_VF, VF + Math.floor(more / columns));
      this.tile += level === 1 ? more : columns * (this.vf - VF);
    }
    this.gap = size.gap;
    this.hosts = hosts;
    this.rows = [];
    this.place = new Map();
    let top = 0;
    for (let from = 0; from < hosts.length; from += this.columns) {
      const row = hosts.slice(from, from + this.columns);
      const height = row.reduce((most, host) => Math.max(most, size.height(host, level ? 0 : this.mostPorts, this.vf)), 0);
      row.forEach((host, column) => this.place.set(host.id, { row: this.rows.length, column }));
      this.rows.push({ top, height, hosts: row });
      top += height + this.gap;
    }
    this.height = top;
  }

  /** The box of a host, or null. */
  box(hostId) {
    const at = this.place.get(hostId);
    if (!at) return null;
    const row = this.rows[at.row];
    return { x: at.column * (this.tile + this.gap), y: row.top, w: this.tile, h: row.height };
  }

  /** The boxes of a host's ports, within the box of the host. */
  ports(host) {
    if (this.level === 0) {
      const columns = Math.max(2, Math.ceil(Math.sqrt(this.mostPorts)));
      return host.ports.map((port, place) => ({
        port, x: 3 + (place % columns) * CELL, y: 3 + Math.floor(place / columns) * CELL, w: CELL - 1, h: CELL - 1,
      }));
    }
    if (this.level === 1) {
      return host.ports.map((port, place) => ({ port, x: 8, y: 25 + place * 17, w: this.tile - 16, h: 14 }));
    }
    let top = 27;
    return host.ports.map((port) => {
      const height = portHeight(port, this.vf);
      const box = { port, x: 8, y: top, w: this.tile - 16, h: height - 7 };
      top += height;
      return box;
    });
  }

  /** The rows between two heights. */
  between(from, to) {
    let low = 0;
    let high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[middle].top + this.rows[middle].height < from) low = middle + 1;
      else high = middle;
    }
    const found = [];
    for (let place = low; place < this.rows.length && this.rows[place].top <= to; place += 1) found.push(this.rows[place]);
    return found;
  }

  /** The host and port at a point. */
  at(x, y) {
    const row = this.between(y, y)[0];
    const column = Math.floor(x / (this.tile + this.gap));
    const host = row && column < this.columns ? row.hosts[column] : null;
    if (!host) return null;
    const left = x - column * (this.tile + this.gap);
    if (left > this.tile || y < row.top) return null;
    const box = this.ports(host).find((each) => left >= each.x && left <= each.x + each.w
      && y - row.top >= each.y - 1 && y - row.top <= each.y + each.h + 1);
    return { host, port: box?.port ?? null };
  }
}

/** The cells of a port's VFs, within the port's box at the largest level. */
export const cells = { label: LABEL, perLine: PER_LINE };
