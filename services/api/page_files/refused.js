// Claims that were refused lately: the list of them, and one of them as it was then.

import { ask } from "./api.js";
import { fill, h } from "./dom.js";
import { explanation, filterName } from "./funnel.js";
import { facts, short, table } from "./tables.js";
import { ago, moment } from "./timeline.js";

const AGAIN = 5000; // milliseconds
const MOST = 100;
const NAMES = 12; // hosts or claims of a request that are shown
const NAMED = [["hosts", "Only on hosts"], ["avoid_hosts", "Not on hosts"], ["near", "On the host of claims"], ["apart_from", "Not on the host of claims"]];

/** The refusals that fit, the newest first. */
export async function refusals(query) {
  return (await ask("refusals", { query })).refusals;
}

/** The claims that were refused last, until `end`. */
export class RefusedList {
  constructor(app) {
    this.app = app;
    this.element = h("section", { hidden: true });
    this.timer = setInterval(() => this.#read(), AGAIN);
    this.#read();
  }

  end() {
    clearInterval(this.timer);
    this.over = true;
  }

  async #read() {
    const found = await refusals({ limit: MOST + 1 });
    if (this.over || this.element.contains(document.activeElement)) return; // it is being used
    this.element.hidden = false;
    fill(this.element, h("h2", {}, "Refused lately"),
      h("p", { class: "hint" }, "The newest 1,000 refused claims are kept for a day, with the reason as it was then. A refusal is listed a few seconds late."),
      found.length ? refusedTable(this.app, found.slice(0, MOST)) : h("p", {}, "No claim was refused in the last day."),
      found.length > MOST && h("p", { class: "hint" }, "There are more. The search finds each by the id of its claim or instance."));
  }
}

/** A row for each refusal, with a link to its funnel. */
export function refusedTable(app, found) {
  return table(["Claim", "Refused", "Asked for", "Stopped by", "In words"], found.map((each) => [
    h("a", { href: app.href("why", each.claim_id), class: "mono", "aria-label": `Why was claim ${short(each.claim_id)} refused?` }, short(each.claim_id)),
    h("time", { datetime: each.at, title: moment(each.at) }, `${ago(each.at)} ago`, each.times > 1 && `, ${each.times} times`),
    h("span", { class: "mono" }, each.alias ?? "no alias"), filterName(each.reason),
    h("span", { class: "words" }, each.message),
  ]), "Refused lately");
}

/** One refused claim: what it asked for, and what each filter left then. */
export function refused(app, refusal) {
  const now = h("div", { "aria-live": "polite" });
  const again = async () => {
    try {
      const why = await ask("explain", { body: refusal.request });
      fill(now, explanation(app, refusal.alias ?? "The same request", why, { when: "now", hosts: refusal.request.hosts?.length }));
    } catch (error) {
      fill(now, h("section", {}, h("p", { class: "wrong" }, `It cannot be asked for again: ${error.message}`)));
    }
  };
  const canAsk = !refusal.is_cut && refusal.reason !== "invalid";
  if (canAsk && !refusal.explanation) again();
  return [
    h("section", { class: "refused" },
      h("h2", {}, "Claim ", h("span", { class: "mono" }, refusal.claim_id), " was refused"),
      facts([
        ["When", `${moment(refusal.at)}, ${ago(refusal.at)} ago${refusal.times > 1 ? `, the last of ${refusal.times} times` : ""}`],
        ["Instance", app.link(refusal.instance_id, "instance", refusal.instance_id)],
        ["Project", refusal.project],
        ["Asked for", refusal.alias],
        ...NAMED.map(([name, words]) => [words, names(refusal.request[name], refusal.is_cut)]),
        ["NUMA nodes", refusal.request.numa_cells?.join(", ")],
        ["Stopped by", filterName(refusal.reason)],
        !refusal.explanation && ["In words", refusal.message],
      ].filter(Boolean)),
      h("div", { class: "actions" }, canAsk && h("button", { type: "button", onclick: again }, "Would it be served now?"),
        h("a", { href: app.href("why") }, "Ask for something else")),
      refusal.is_cut && h("p", { class: "hint" }, "It named more hosts or claims than are kept, so the page cannot ask the same again.")),
    refusal.explanation && explanation(app, refusal.alias ?? "The request", refusal.explanation, { when: "then", hosts: refusal.request.hosts?.length }),
    now,
  ];
}

function names(all, isCut) {
  if (!all?.length) return null;
  const more = all.length - NAMES;
  return all.slice(0, NAMES).join(", ") + (more > 0 ? ` and ${isCut ? "at least " : ""}${more} more` : "");
}
