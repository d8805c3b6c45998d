// What the shapes and colours of the map mean.

import { h } from "./dom.js";
import { STATUSES } from "./model.js";
import { paintPort, paintStatus, readColours } from "./painter.js";

const HOST = { drained: null, silent: false };
const PORT = { letter: "f", runs: "", vfs: 8, notes: {}, counts: { f: 8 } };
const PORTS = [
  ["free", PORT],
  ["some VFs held", { ...PORT, letter: "u", counts: { f: 4, h: 4 } }],
  ["no VF free", { ...PORT, letter: "u", counts: { h: 8 } }],
  ["held whole (PF)", { ...PORT, letter: "h", claim: "x", counts: { u: 8 } }],
  ["reserved", { ...PORT, letter: "r", notes: { reserved: "x" }, counts: { r: 8 } }],
  ["drained or silent", { ...PORT, letter: "d", notes: { drained: "x" }, counts: { d: 8 } }],
  ["not usable", { ...PORT, letter: "x", notes: { unusable: "x" }, counts: { x: 8 } }],
];

/** The legend of a zoom level. */
export function legend(level) {
  const entries = level === 0
    ? PORTS.map(([words, port]) => entry(words, (context, colours) => paintPort(context, colours, port, HOST, { x: 1, y: 1, w: 12, h: 12 })))
    : Object.entries(STATUSES).filter(([letter]) => level === 2 || "fhcrdx".includes(letter))
      .map(([letter, words]) => entry(words, (context, colours) => paintStatus(context, colours, letter, 2, 2, 10)));
  return h("ul", { class: "legend", "aria-label": "Legend" }, entries);
}

function entry(words, paint) {
  const canvas = h("canvas", { width: 28, height: 28, "aria-hidden": "true", class: "sample" });
  const context = canvas.getContext("2d");
  context.setTransform(2, 0, 0, 2, 0, 0);
  paint(context, readColours());
  return h("li", {}, canvas, words);
}
