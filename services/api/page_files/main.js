// The page: who looks, the bar, and which view is shown.

import { ask, Problem, takeToken, token } from "./api.js";
import { fill, h, say } from "./dom.js";
import { MapView } from "./map.js";
import { Fleet } from "./model.js";
import { find } from "./search.js";
import { follow } from "./stream.js";
import { TotalsView } from "./totals.js";
import { TroubleView } from "./trouble.js";
import { WaitingView } from "./waiting.js";
import { WhyView } from "./why.js";

const VIEWS = [
  { path: "map", name: "Map", make: (app) => new MapView(app) },
  { path: "why", name: "Why not?", make: (app) => new WhyView(app) },
  { path: "waiting", name: "Waiting", make: (app) => new WaitingView(app) },
  { path: "trouble", name: "Trouble", make: (app) => new TroubleView(app) },
  { path: "totals", name: "Totals", make: (app) => new TotalsView(app) },
];
const ON_THE_MAP = new Set(["host", "port", "claim", "instance"]);

const bar = document.getElementById("bar");
const main = document.getElementById("main");

/** What the views share. */
class App {
  fleet = new Fleet();
  me = null;
  aliases = [];
  view = null;
  shown = null;

  get isOperator() {
    return this.me?.role === "operator";
  }

  go(...parts) {
    location.hash = `#/${parts.map(encodeURIComponent).join("/")}`;
  }

  href(...parts) {
    return `#/${parts.map(encodeURIComponent).join("/")}`;
  }

  link(words, ...parts) {
    return h("a", { href: this.href(...parts), class: "mono" }, words);
  }

  async start() {
    takeToken();
    if (!token.get()) return this.askForToken();
    // Stream and question may both be refused. The question says why, so the form is shown once and keeps what is typed.
    const attempt = (this.attempt ?? 0) + 1;
    this.attempt = attempt;
    this.me = null;
    const isCurrent = () => this.attempt === attempt;
    this.stop = follow("v1/map", (message) => isCurrent() && this.take(message),
      (state, why) => isCurrent() && this.tell(state, why));
    try {
      const me = await ask("token");
      if (!isCurrent()) return undefined;
      this.me = me;
    } catch (error) {
      if (!isCurrent()) return undefined;
      if (error.status === 401) token.forget();
      return this.askForToken(error.message);
    }
    if (this.me.project !== null || this.me.role === "claimer") {
      const whose = this.me.project === null ? "" : ` It is for the project ${this.me.project}.`;
      return this.askForToken(`The page shows all projects: it needs a reader's or an operator's token.${whose}`);
    }
    this.showBar();
    window.onhashchange = () => this.route();
    this.route();
    this.tell(this.now);
    if (this.fleet.version) this.shownFirst();
    return undefined;
  }

  /** Take a message of the map. The first one may come before it is known who looks. */
  take(message) {
    const isFirst = !this.fleet.version;
    this.fleet.take(message);
    this.counts = { waiting: message.counts.waiting, trouble: message.counts.steps + this.fleet.troubles().length };
    if (!this.tabs) return;
    for (const [path, number] of Object.entries(this.counts)) this.count(path, number);
    if (isFirst) this.shownFirst();
  }

  shownFirst() {
    for (const [path, number] of Object.entries(this.counts)) this.count(path, number);
    this.route();
    requestAnimationFrame(() => performance.mark("portclaim-map"));
  }

  askForToken(why) {
    this.stop?.();
    this.attempt = (this.attempt ?? 0) + 1;
    this.tabs = null;
    this.fleet = new Fleet();
    fill(bar, h("span", { class: "name" }, "Portclaim"));
    const field = h("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true });
    const form = h("form", { class: "sign-in", onsubmit: (event) => {
      event.preventDefault();
      token.set(field.value.trim());
      this.start();
    } },
    h("h1", {}, "Who looks?"),
    why && h("p", { class: "wrong", role: "alert" }, why),
    h("label", { for: "token" }, "Token of a reader or an operator"),
    field,
    h("button", { class: "primary" }, "Show the fleet"),
    h("p", { class: "hint" }, "It stays in this tab until the tab is closed. To make one: ",
      h("code", {}, "portclaim token create --role reader --name NAME")));
    fill(main, form);
    field.focus();
  }

  showBar() {
    this.tabs = VIEWS.map((view) => h("a", { href: this.href(view.path) }, view.name, h("span", { class: "count", hidden: true })));
    this.state = h("span", { class: "state", role: "status" }, "connecting");
    const field = h("input", { type: "search", id: "search", placeholder: "Instance, claim, host or address", "aria-label": "Search for an instance, claim, host or address" });
    const form = h("form", { class: "search", role: "search", onsubmit: async (event) => {
      event.preventDefault();
      const found = await find(this, field.value.trim());
      if (found) {
        this.go(...found);
        field.value = "";
      } else say(`Nothing is called ${field.value}`);
      field.setCustomValidity(found ? "" : `Nothing is called ${field.value}`);
      field.reportValidity();
    }, oninput: () => field.setCustomValidity("") }, field);
    const leave = h("button", { type: "button", class: "quiet", title: `${this.me.name}, ${this.me.role}`, onclick: () => {
      token.forget();
      location.hash = "";
      location.reload();
    } }, "Sign out");
    fill(bar, h("a", { class: "name", href: this.href("map") }, "Portclaim"),
      h("nav", { "aria-label": "Views" }, this.tabs), form, this.state, leave);
  }

  tell(state, why) {
    if (state === "denied") {
      if (!this.me) return;
      token.forget();
      this.askForToken(why);
      return;
    }
    this.now = state;
    if (!this.tabs || !state) return;
    const words = { live: "live", away: "no connection: trying again" }[state];
    if (this.state.textContent !== words) this.state.textContent = words;
    this.state.className = `state ${state}`;
  }

  /** A number beside the name of a view. 0 hides it. */
  count(path, number) {
    const badge = this.tabs[VIEWS.findIndex((view) => view.path === path)].lastChild;
    badge.hidden = !number;
    badge.textContent = String(number);
  }

  route() {
    const parts = partsOf(location.hash);
    const path = !parts.length || ON_THE_MAP.has(parts[0]) ? "map" : parts[0];
    const wanted = VIEWS.find((view) => view.path === path) ?? VIEWS[0];
    if (this.shown !== wanted) {
      this.view?.end?.();
      this.shown = wanted;
      this.view = wanted.make(this);
      fill(main, this.view.element);
      document.title = `${wanted.name} · Portclaim`;
    }
    this.tabs.forEach((tab, place) => {
      if (VIEWS[place] === wanted) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    });
    this.view.show?.(parts);
  }
}

/** The parts of an address within the page. One that cannot be read is the map's. */
function partsOf(hash) {
  try {
    return hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    return [];
  }
}

export const app = new App();
window.addEventListener("unhandledrejection", (event) => {
  if (event.reason instanceof Problem) {
    say(event.reason.message);
    event.preventDefault();
  }
});
app.start();
