import { h } from "./dom.js";

export class WaitingView {
  constructor(app) {
    this.app = app;
    this.element = h("div", { class: "sheet" }, h("h1", {}, "Waiting"));
  }
}
