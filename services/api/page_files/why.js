// "Why not?": would a request be served, why does a claim wait, and why was one refused.

import { ask } from "./api.js";
import { command, fill, h, quoted } from "./dom.js";
import { explanation } from "./funnel.js";
import { refused, RefusedList, refusals } from "./refused.js";

export class WhyView {
  constructor(app) {
    this.app = app;
    this.answer = h("div", { "aria-live": "polite" });
    this.refused = new RefusedList(app);
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
      this.asking = h("div", {},
        h("p", { class: "hint" }, "Ask whether a request would be served now. It reserves nothing."),
        h("section", {}, this.form)),
      this.answer, this.refused.element);
    this.ready = this.#begin();
  }

  end() {
    this.refused.end();
  }

  async #begin() {
    const { aliases } = await ask("aliases");
    this.aliases = aliases;
    this.#add();
  }

  /** `why/nic-vf:2,nic-pf:1` asks at once, `why/nic-vf:2/HOST,HOST` on these hosts; `why/CLAIM` of a claim that waits or was refused. */
  async show([, what, hosts = ""]) {
    await this.ready;
    if (!what && this.asking.hidden) {
      this.asked = null;
      fill(this.answer);
      this.asking.hidden = false;
    }
    if (!what || `${what}/${hosts}` === this.asked) return;
    this.asked = `${what}/${hosts}`;
    this.asking.hidden = false;
    this.form.elements.hosts.value = hosts.replaceAll(",", ", ");
    if (what.includes(":")) {
      this.#take(what);
      await this.#ask(null);
    } else await this.#claim(what);
  }

  async #claim(id) {
    const [{ claims: [waiting] }, [refusal]] = await Promise.all([ask("waiting", { query: { claim_id: id } }), refusals({ claim_id: id, explained: true, limit: 1 })]);
    if (waiting) {
      this.#take(waiting.alias);
      await this.#ask(waiting);
    } else if (refusal) {
      this.asking.hidden = true; // what was asked for is in the answer
      fill(this.answer, refused(this.app, refusal));
    } else fill(this.answer, h("p", { class: "wrong", role: "alert" }, `Claim ${id} does not wait, and no refusal of it is kept.`));
  }

  /** Show a request in the form. */
  #take(spec) {
    fill(this.rows);
    for (const each of (spec ?? "").split(",").filter(Boolean)) this.#add(...each.trim().split(":"));
    if (!this.rows.children.length) this.#add();
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
      fill(this.answer, explanation(this.app, spec, why, { about, hosts: hosts.length }), h("section", {}, h("h2", {}, "The same on the command line"), command(words)));
    } catch (error) {
      fill(this.answer, h("p", { class: "wrong", role: "alert" }, error.message));
    }
  }
}
