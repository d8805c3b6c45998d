// The VFs of one port, large.

import { h } from "./dom.js";
import { paintStatus, readColours } from "./painter.js";

const SIZE = 20;
const PER_LINE = 16;
const LETTERS = { available: "f", claimed: "c", allocated: "h", unclaimable: "u", unavailable: "u", removed: "n" };

/** A cell for each of these devices of the API. Pointing at one says which it is. */
export function devicesGrid(devices) {
  const lines = Math.ceil(devices.length / PER_LINE);
  const ratio = devicePixelRatio || 1;
  const width = Math.min(PER_LINE, devices.length) * SIZE;
  const canvas = h("canvas", { width: width * ratio, height: lines * SIZE * ratio, class: "grid-canvas", "aria-hidden": "true" });
  canvas.style.width = `${width}px`;
  canvas.style.height = `${lines * SIZE}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const colours = readColours();
  devices.forEach((device, place) => paintStatus(context, colours, letterOf(device),
    (place % PER_LINE) * SIZE + 1, Math.floor(place / PER_LINE) * SIZE + 1, SIZE - 4));
  const under = h("p", { class: "hint grid-under" }, "A cell for each VF. Point at one to read its address.");
  canvas.onmousemove = (event) => {
    const place = Math.floor(event.offsetY / SIZE) * PER_LINE + Math.floor(event.offsetX / SIZE);
    const device = devices[place];
    if (device) under.textContent = [device.address, device.effective_status, device.reason].filter(Boolean).join(", ");
  };
  return h("div", { class: "grid-frame" }, canvas, under);
}

function letterOf(device) {
  const letter = LETTERS[device.effective_status] ?? "u";
  if (letter !== "u") return letter;
  const why = device.reason ?? "";
  if (why.startsWith("port drained") || why.startsWith("host drained")) return "d";
  if (why.startsWith("reserved")) return "r";
  if (why.startsWith("no device_spec")) return "n";
  return why.startsWith("its PF is") || why === "" ? "u" : "x";
}
