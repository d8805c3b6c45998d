// Facts and tables, as all views show them.

import { h } from "./dom.js";

export const short = (id) => id.slice(0, 8);
export const mono = (words) => h("span", { class: "mono" }, words);

/** Names with what they are. null leaves one out. */
export function facts(entries) {
  return h("dl", { class: "facts" }, entries.filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value instanceof Node ? value : String(value))]));
}

/** A table that scrolls sideways if it must. */
export function table(heads, rows, name) {
  return h("div", { class: "table-frame", tabindex: 0, role: "region", "aria-label": name ?? heads.join(", ") },
    h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))))));
}
