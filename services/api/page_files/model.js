// The fleet as this tab knows it: hosts, their ports, and each port's VFs as runs of letters.

/** Statuses of a VF, or of a port that has none. The key is the letter that the API sends. */
export const STATUSES = {
  f: "free",
  c: "claimed",
  h: "allocated",
  u: "blocked by its PF or VFs",
  r: "reserved",
  d: "drained",
  x: "not usable",
  n: "not offered",
};

const names = new Intl.Collator("en", { numeric: true });

export class Fleet {
  hosts = new Map();
  ports = new Map();
  pools = new Map();
  version = 0;
  #listeners = new Set();
  #ordered = null;
  #troubled = null;

  /** Take a message of the API. */
  take(message) {
    const moved = new Set();
    if (message.whole) {
      this.hosts.clear();
      this.ports.clear();
      this.#ordered = null;
    }
    for (const pool of message.pools) this.pools.set(pool.id, pool);
    for (const id of message.gone_hosts ?? []) {
      this.hosts.delete(id);
      this.#ordered = null;
    }
    for (const [id, name, drained, silent] of message.hosts) {
      const host = this.hosts.get(id);
      if (host) Object.assign(host, { name, drained, silent });
      else {
        this.hosts.set(id, { id, name, drained, silent, ports: [] });
        this.#ordered = null;
      }
    }
    for (const id of message.gone_ports ?? []) {
      const host = this.hosts.get(this.ports.get(id)?.hostId);
      if (host) host.ports = host.ports.filter((port) => port.id !== id);
      this.ports.delete(id);
    }
    for (const row of message.ports) {
      const port = readPort(row);
      const before = this.ports.get(port.id);
      this.ports.set(port.id, port);
      const host = this.hosts.get(port.hostId);
      if (!host) continue;
      const place = before ? host.ports.findIndex((each) => each.id === port.id) : -1;
      if (place >= 0) host.ports[place] = port;
      else {
        host.ports.push(port);
        moved.add(host);
      }
    }
    for (const host of moved) host.ports.sort((a, b) => (a.address < b.address ? -1 : 1));
    this.version += 1;
    const changed = new Set(message.ports.map((row) => row[0]));
    for (const listener of this.#listeners) listener(message, changed);
  }

  /** Call it after each message; answers a function that ends this. */
  listen(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The hosts in the order of their names. */
  get ordered() {
    this.#ordered ??= [...this.hosts.values()].sort((a, b) => names.compare(a.name, b.name));
    return this.#ordered;
  }

  host(name) {
    return this.ordered.find((host) => host.name === name);
  }

  hostOf(port) {
    return this.hosts.get(port.hostId);
  }

  /** Hosts and ports that stand still, with the reason of a port. It is made again when something has changed. */
  troubles() {
    if (this.#troubled?.version === this.version) return this.#troubled.found;
    const found = [];
    for (const host of this.ordered) {
      if (host.silent && host.drained === null) found.push({ host, port: null, why: null });
      for (const port of host.ports) {
        const why = port.notes.unusable ?? (port.notes.missing && !port.claim ? "its host does not report it now" : null)
          ?? (port.counts.x ? `${port.counts.x} of its VFs cannot be used` : null);
        if (why) found.push({ host, port, why });
      }
    }
    this.#troubled = { version: this.version, found };
    return found;
  }

  /** Numbers of the whole fleet. Silent and drained hosts have nothing free. */
  totals() {
    const found = { hosts: 0, drained: 0, silent: 0, ports: 0, whole: 0, taken: 0, vfs: 0, free: 0, held: 0 };
    for (const host of this.hosts.values()) {
      found.hosts += 1;
      if (host.drained !== null) found.drained += 1;
      else if (host.silent) found.silent += 1;
      const takes = host.drained === null && !host.silent;
      for (const port of host.ports) {
        found.ports += 1;
        found.vfs += port.vfs;
        if (takes && port.letter === "f") found.whole += 1;
        if (port.claim) found.taken += 1;
        if (takes) found.free += port.counts.f ?? 0;
        found.held += (port.counts.h ?? 0) + (port.counts.c ?? 0);
      }
    }
    return found;
  }
}

function readPort([id, hostId, address, numa, pools, letter, runs, claim, notes]) {
  const counts = {};
  let vfs = 0;
  for (const [, length, each] of runs.matchAll(/(\d+)(\w)/g)) {
    counts[each] = (counts[each] ?? 0) + Number(length);
    vfs += Number(length);
  }
  return { id, hostId, address, numa, pools, letter, runs, claim, notes: notes ?? {}, counts, vfs };
}

/** The letter of each VF of a port. */
export function lettersOf(port) {
  let letters = "";
  for (const [, length, each] of port.runs.matchAll(/(\d+)(\w)/g)) letters += each.repeat(Number(length));
  return letters;
}

/** How many of a port's VFs claims have. */
export const heldVfs = (port) => (port.counts.h ?? 0) + (port.counts.c ?? 0);

/** The one status by which a port is filtered and drawn when it is small. */
export function statusOf(port, host) {
  if (port.notes.unusable || port.letter === "x" || port.counts.x) return "trouble";
  if (port.claim) return "whole";
  if (host.silent) return "silent";
  if (host.drained !== null || port.notes.drained) return "drained";
  if (port.notes.reserved) return "reserved";
  if (port.letter === "f") return "free";
  if (port.vfs && (port.counts.f ?? 0) > 0) return "partly";
  return "full";
}

/** The words for it. */
export const PORT_STATUSES = {
  free: "whole port free",
  partly: "some VFs held",
  full: "no VF free",
  whole: "held whole (PF)",
  reserved: "reserved for a waiting claim",
  drained: "drained",
  silent: "host silent",
  trouble: "not usable",
};

/** One sentence about a port. */
export function sentence(port, host) {
  const status = PORT_STATUSES[statusOf(port, host)];
  const vfs = port.vfs ? `, ${heldVfs(port)} of ${port.vfs} VFs held, ${port.counts.f ?? 0} free` : "";
  return `${host.name} port ${port.address}: ${status}${vfs}`;
}
