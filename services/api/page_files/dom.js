// Elements without markup: text from the API only ever becomes a text node or an attribute's value.

/** An element. `facts`: attributes, `class`, and functions as listeners (`onclick`). null and false leave one out. */
export function h(tag, facts = {}, ...children) {
  const element = document.createElement(tag);
  give(element, facts);
  add(element, children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** The same for a drawing. */
export function svg(tag, facts = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  give(element, facts);
  add(element, children);
  return element;
}

/** Replace what an element contains. */
export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

/** Have a screen reader say it. */
export function say(text) {
  document.getElementById("said").textContent = text;
}

/** A text that can be copied with a button. */
export function command(text) {
  const button = h("button", { type: "button", class: "copy", "aria-label": `Copy: ${text}` }, "Copy");
  button.onclick = async () => {
    await copy(text);
    button.textContent = "Copied";
    say("Copied");
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };
  return h("div", { class: "command" }, h("code", {}, text), button);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // not on https
    const area = h("textarea", { class: "visually-hidden", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

/** A word as one argument of a shell. */
export function quoted(word) {
  return /^[\w.:/@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function give(element, facts) {
  for (const [name, value] of Object.entries(facts)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element[name] = value;
    else if (name === "class") element.setAttribute("class", value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
}

function add(element, children) {
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child);
  }
}
