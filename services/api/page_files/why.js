import { h } from "./dom.js";

export class WhyView {
  constructor(app) {
    this.app = app;
    this.element = h("div", { class: "sheet" }, h("h1", {}, "Why"));
  }
}
