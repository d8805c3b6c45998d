// The waiting queues: who is next, since when, and which ports are kept for whom.

import { ask } from "./api.js";
import { fill, h } from "./dom.js";
import { short, table } from "./tables.js";
import { span } from "./timeline.js";

const AGAIN = 5000; // milliseconds; a change of a queue is read at once

export class WaitingView {
  constructor(app) {
    this.app = app;
    this.list = h("div", {}, h("p", { class: "hint" }, "Reading …"));
    this.element = h("div", { class: "sheet" },
      h("h1", {}, "Waiting claims"),
      h("p", { class: "hint" }, "Claims that ask for the same form a queue. The head of a queue is served first; ports may be kept for it until all that it needs is free."),
      this.list);
    this.stop = app.fleet.listen((message) => { if (message.queues) this.#soon(); });
    this.timer = setInterval(() => this.#read(), AGAIN);
    this.#read();
  }

  end() {
    this.stop();
    clearInterval(this.timer);
    clearTimeout(this.later);
  }

  #soon() {
    this.later ??= setTimeout(() => { this.later = null; this.#read(); }, 300);
  }

  async #read() {
    const { claims, more } = await ask("waiting", { query: { limit: 1000 } });
    const queues = new Map();
    for (const claim of claims) {
      const key = JSON.stringify(claim.requests);
      queues.set(key, [...(queues.get(key) ?? []), claim]);
    }
    fill(this.list,
      !claims.length && h("section", {}, h("p", {}, "No claim waits.")),
      [...queues.values()].map((queue) => this.#queue(queue)),
      more && h("p", { class: "hint" }, "There are more: these are the 1,000 that have waited longest."));
  }

  #queue(queue) {
    queue.sort((a, b) => a.position - b.position);
    const [head] = queue;
    const reserved = queue.reduce((sum, claim) => sum + claim.reserved_ports.length, 0);
    return h("section", {},
      h("h2", {}, h("span", { class: "mono" }, head.alias ?? "requests without an alias"), h("small", {}, ` ${queue.length} waiting, ${reserved} ports reserved`)),
      table(["Position", "Claim", "Instance", "Has waited", "Expires in", "Reserved for it", "Explanation"], queue.slice(0, 50).map((claim) => [
        String(claim.position), this.app.link(short(claim.claim_id), "claim", claim.claim_id),
        this.app.link(short(claim.instance_id), "instance", claim.instance_id),
        span(claim.waited), span(claim.expires_in),
        claim.reserved_host ? h("span", {}, this.app.link(claim.reserved_host, "host", claim.reserved_host), " ",
          claim.reserved_ports.map((address) => [this.app.link(address, "port", claim.reserved_host, address), " "])) : "",
        h("a", { href: this.app.href("why", claim.claim_id), "aria-label": `Why does claim ${short(claim.claim_id)} wait?` }, "Why?"),
      ]), `Queue of ${head.alias}`),
      queue.length > 50 && h("p", { class: "hint" }, `and ${queue.length - 50} more`));
  }
}
