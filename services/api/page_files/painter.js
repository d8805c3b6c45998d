// How a port, a VF and a host look. Each status has a shape besides its colour.

import { cells } from "./layout.js";
import { heldVfs, lettersOf, statusOf } from "./model.js";

const COLOURS = ["surface", "line", "text", "muted", "free", "claimed", "on-claimed", "held", "whole", "blocked", "reserved", "drained", "trouble", "on-held", "select"];
const FONT = "system-ui, sans-serif";
const MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace";

/** The colours of the page now, light or dark. */
export function readColours() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

/** One cell with the shape of a status. Used for the legend, too. */
export function paintStatus(context, colours, letter, x, y, size) {
  context.lineWidth = 1;
  const outline = (colour) => {
    context.strokeStyle = colour;
    context.strokeRect(x + 0.5, y + 0.5, size - 1, size - 1);
  };
  switch (letter) {
    case "h": // full
      context.fillStyle = colours.held;
      context.fillRect(x, y, size, size);
      break;
    case "c": // a half
      outline(colours.claimed);
      context.fillStyle = colours.claimed;
      shape(context, [[x, y + size], [x + size, y], [x + size, y + size]]);
      break;
    case "u": // a dot
      context.fillStyle = colours.blocked;
      context.fillRect(x + size / 2 - 1, y + size / 2 - 1, 2, 2);
      break;
    case "r": // a frame within a frame
      outline(colours.reserved);
      context.fillStyle = colours.reserved;
      context.fillRect(x + size / 2 - 1.5, y + size / 2 - 1.5, 3, 3);
      break;
    case "d": // stripes
      stripes(context, colours.drained, x, y, size, size);
      break;
    case "x": // a cross
      outline(colours.trouble);
      stroke(context, colours.trouble, [[x + 2, y + 2], [x + size - 2, y + size - 2]], 1.5);
      stroke(context, colours.trouble, [[x + size - 2, y + 2], [x + 2, y + size - 2]], 1.5);
      break;
    case "n":
      stroke(context, colours.line, [[x + 1, y + size / 2], [x + size - 1, y + size / 2]], 1);
      break;
    default: // free: empty
      outline(colours.free);
  }
}

/** A port as a cell that is filled from below as its VFs are held. */
export function paintPort(context, colours, port, host, box) {
  const { x, y, w, h } = box;
  const status = statusOf(port, host);
  if (status === "trouble") return paintStatus(context, colours, "x", x, y, w);
  const used = port.claim ? 1 : port.vfs ? heldVfs(port) / port.vfs : 0;
  const filled = used ? Math.max(2, Math.round(used * h)) : 0;
  context.fillStyle = port.claim ? colours.whole : colours.held;
  context.fillRect(x, y + h - filled, w, filled);
  if (port.claim) {
    context.fillStyle = colours["on-held"];
    context.fillRect(x + w / 2 - 2, y + h / 2 - 2, 4, 4);
  }
  if (status === "reserved") paintStatus(context, colours, "r", x, y, w);
  else if (status === "drained" || status === "silent") stripes(context, colours.drained, x, y, w, h - filled);
  else if (!port.claim) {
    context.strokeStyle = used ? colours.held : colours.free;
    context.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
  }
  return undefined;
}

/** A port as a bar: what is held, claimed, blocked; the rest is free. */
export function paintBar(context, colours, port, host, box, short) {
  const { x, y, h } = box;
  const label = 58;
  const right = 46;
  const w = box.w - label - right;
  text(context, short(port), x, y + h - 3, colours.muted, `11px ${MONO}`);
  context.strokeStyle = colours.free;
  context.lineWidth = 1;
  context.strokeRect(x + label + 0.5, y + 2.5, w - 1, h - 5);
  const status = statusOf(port, host);
  let said = port.vfs ? `${heldVfs(port)}/${port.vfs}` : port.claim ? "held" : "free";
  if (port.claim) {
    context.fillStyle = port.letter === "c" ? colours.claimed : colours.whole;
    context.fillRect(x + label, y + 2, w, h - 4);
    text(context, "PF", x + label + w / 2, y + h - 4, colours[port.letter === "c" ? "on-claimed" : "on-held"], `600 9px ${FONT}`, "center");
    said = "whole";
  } else {
    let left = x + label;
    for (const [letter, colour] of [["h", colours.held], ["c", colours.claimed]]) {
      const part = port.vfs ? Math.round(((port.counts[letter] ?? 0) / port.vfs) * w) : 0;
      context.fillStyle = colour;
      context.fillRect(left, y + 2, part, h - 4);
      left += part;
    }
    const rest = x + label + w - left;
    if (status === "trouble") stripes(context, colours.trouble, left, y + 2, rest, h - 4);
    if (status === "drained" || status === "silent") stripes(context, colours.drained, left, y + 2, rest, h - 4);
    if (status === "reserved") {
      context.fillStyle = colours.reserved;
      context.fillRect(left + rest / 2 - 2, y + h / 2 - 2, 4, 4);
    }
  }
  text(context, said, x + box.w, y + h - 3, colours.text, `11px ${FONT}`, "right");
}

/** A port with a cell for each VF. */
export function paintCells(context, colours, port, box, size) {
  const { x, y, h } = box;
  text(context, port.address, x, y + 8, colours.muted, `11px ${MONO}`);
  const left = x + cells.label;
  const columns = Math.min(cells.perLine, Math.max(1, port.vfs));
  if (port.claim || !port.vfs) {
    const w = port.vfs ? columns * size - 1 : 8 * size - 1;
    const letter = port.letter;
    if (port.claim) {
      context.fillStyle = letter === "c" ? colours.claimed : colours.whole;
      context.fillRect(left, y, w, h - 1);
      const ink = colours[letter === "c" ? "on-claimed" : "on-held"];
      if (h >= 9) text(context, `PF ${letter === "c" ? "claimed" : "allocated"}`, left + 6, y + h / 2 + 3.5, ink, `600 10px ${FONT}`);
    } else paintStatus(context, colours, letter, left, y, size - 1);
    return;
  }
  const letters = lettersOf(port);
  for (let place = 0; place < letters.length; place += 1) {
    paintStatus(context, colours, letters[place],
      left + (place % cells.perLine) * size, y + Math.floor(place / cells.perLine) * size, size - 1);
  }
}

export function text(context, words, x, y, colour, font, align = "left") {
  context.font = font;
  context.fillStyle = colour;
  context.textAlign = align;
  context.fillText(words, x, y);
}

/** A text that is cut to a width. */
export function cut(context, words, width, font) {
  context.font = font;
  if (context.measureText(words).width <= width) return words;
  let length = words.length;
  while (length > 1 && context.measureText(`${words.slice(0, length)}…`).width > width) length -= 1;
  return `${words.slice(0, length)}…`;
}

function stripes(context, colour, x, y, w, h) {
  if (w <= 0 || h <= 0) return;
  context.save();
  context.beginPath();
  context.rect(x, y, w, h);
  context.clip();
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.beginPath();
  for (let at = -h; at < w; at += 4) {
    context.moveTo(x + at, y + h);
    context.lineTo(x + at + h, y);
  }
  context.stroke();
  context.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
  context.restore();
}

function shape(context, points) {
  context.beginPath();
  points.forEach(([x, y], place) => (place ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.closePath();
  context.fill();
}

function stroke(context, colour, points, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.beginPath();
  points.forEach(([x, y], place) => (place ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
  context.lineWidth = 1;
}
