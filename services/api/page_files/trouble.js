// What stands still, and the command that mends it.

import { actionsFor, retry } from "./actions.js";
import { ask } from "./api.js";
import { command, fill, h, quoted } from "./dom.js";
import { short } from "./tables.js";
import { span } from "./timeline.js";

const AGAIN = 3000; // milliseconds
const OVERDUE = 30; // seconds after which an unanswered step is trouble
const MOST = 50; // of each kind
const RESTART = "systemctl restart portclaim-compute-agent";

export class TroubleView {
  constructor(app) {
    this.app = app;
    this.list = h("div", {}, h("p", { class: "hint" }, "Reading …"));
    this.element = h("div", { class: "sheet" }, h("h1", {}, "Trouble"), this.list);
    this.timer = setInterval(() => this.#read(), AGAIN);
    this.#read();
  }

  end() {
    clearInterval(this.timer);
  }

  async #read() {
    const [{ hosts: silent }, { hosts: drained }, { steps }] = await Promise.all([
      ask("hosts", { query: { is_silent: true, is_drained: false, limit: MOST } }),
      ask("hosts", { query: { is_drained: true, limit: MOST } }),
      ask("steps", { query: { older_than: OVERDUE, limit: MOST } }),
    ]);
    if (this.list.contains(document.activeElement) && document.activeElement.matches("button")) return; // it is being used
    const devices = this.app.fleet.troubles().filter((each) => each.port);
    fill(this.list,
      !silent.length && !steps.length && !devices.length && h("section", {}, h("p", {}, h("b", {}, "Nothing stands still."), " Every host reports, every step is answered, and every device came back.")),
      this.#section("Silent hosts", silent, "They get no claims. What they hold stays held.", (host) => this.#entry(
        this.app.link(host.host, "host", host.host), `last report ${span(host.agent_silent_for)} ago, ${host.live_claims} live claims`,
        [[`On ${host.host}: start its agent`, RESTART], host.live_claims === 0 && ["If it will not come back", `portclaim host remove ${quoted(host.host)} --reason WHY`]],
        actionsFor.host(this.app, host))),
      this.#section("Steps that nobody answers", steps, "The agent has not said that it has prepared, attached or detached the devices.", (step) => this.#entry(
        this.app.link(short(step.claim_id), "claim", step.claim_id), [`${step.action} on `, this.app.link(step.host, "host", step.host),
          `, for ${span(step.awaited_for)}, sent ${step.times_sent} times${step.parked ? ", no longer sent" : ""}`, step.last_failure && h("p", { class: "cause" }, step.last_failure)],
        [step.parked ? ["Mend it on the host, then", `portclaim outbox retry ${step.claim_id}`] : [`On ${step.host}: what its agent says`, "journalctl -u portclaim-compute-agent"]],
        this.app.isOperator && h("div", { class: "actions" }, h("button", { type: "button", onclick: () => retry([step.claim_id], null) }, "Retry")))),
      this.#section("Devices that cannot be used", devices, "They did not come back, or their host cannot hand them out.", ({ host, port, why }) => this.#entry(
        this.app.link(`${host.name} ${port.address}`, "port", host.name, port.address), h("p", { class: "cause" }, why),
        [why.includes("portclaim host renew") ? ["Allow it again", `portclaim host renew ${quoted(host.name)} --device ${port.address}`] : [`On ${host.name}: what stands in the way`, "portclaim host scan"]])),
      this.#section("Drained hosts", drained, "No trouble: somebody wanted it. They get no claims until they are undrained.", (host) => this.#entry(
        this.app.link(host.host, "host", host.host), `${host.drained_reason}; ${host.live_claims} live claims`,
        [["Take claims again", `portclaim host undrain ${quoted(host.host)}`]], actionsFor.host(this.app, host))));
  }

  #section(name, all, about, entry) {
    if (!all.length) return null;
    return h("section", {}, h("h2", {}, name, h("small", {}, ` ${all.length}`)), h("p", { class: "hint" }, about),
      h("ul", { class: "troubles" }, all.slice(0, MOST).map(entry)),
      all.length > MOST && h("p", { class: "hint" }, `and ${all.length - MOST} more`));
  }

  #entry(name, about, commands, actions) {
    return h("li", {}, h("div", {}, h("b", {}, name), h("div", { class: "hint" }, about)),
      h("div", { class: "remedies" }, commands.filter(Boolean).map(([words, text]) => [h("p", { class: "hint" }, `${words}:`), command(text)]), actions));
  }
}
