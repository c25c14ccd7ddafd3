/**
 * The bytes of one piece, a column each: what is known of them, in rows.
 * @module
 */

import { glyph, hex } from "./bytes.js";
import { el } from "./dom.js";

/** @typedef {{name: string, cell: (offset: number) => string|Node}} Row */

const MOST_COLUMNS = 200;

/**
 * @param {HTMLElement} root
 * @param {import("./patching.js").Piece} piece
 * @param {Uint8Array} bytes
 * @param {Row[]} rows
 * @param {string} title
 */
export function showPiece(root, piece, bytes, rows, title) {
  const end = Math.min(piece.end, piece.start + MOST_COLUMNS);
  const offsets = Array.from({ length: end - piece.start }, (_, i) => piece.start + i);
  const note = end < piece.end ? `, the first ${MOST_COLUMNS} of its bytes` : "";
  root.replaceChildren(
    el("p", { class: "inspector-title" }, title + note),
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Bytes: ${title}` },
      el("table", {},
        el("thead", {}, headings(piece, end, bytes)),
        el("tbody", {}, ...[{ name: "byte", cell: (i) => hex(bytes[i]) }, ...rows].map(
          ({ name, cell }) => el("tr", {}, el("th", { scope: "row" }, name),
            ...offsets.map((i) => el("td", {}, cell(i)))),
        ))),
    ),
  );
}

/** Characters, each above its bytes. */
function headings(piece, end, bytes) {
  const row = el("tr", {}, el("td"));
  for (const unit of piece.units.filter((u) => u.start < end)) {
    const { text, kind } = glyph(unit, bytes);
    const span = Math.min(unit.end, end) - unit.start;
    row.append(el("th", { scope: "colgroup", colspan: span },
      el("span", { class: kind === "plain" ? "" : "mark" }, kind === "space" ? "space" : text)));
  }
  return row;
}

/** The text of a piece, to be read out. @param {import("./patching.js").Piece} piece @param {Uint8Array} bytes */
export function spoken(piece, bytes) {
  const words = piece.units.map((unit) => {
    const { text, kind } = glyph(unit, bytes);
    return kind === "plain" ? text : kind === "space" ? " " : ` ${kind === "newline" ? "newline" : text} `;
  });
  return words.join("").trim() || "space";
}
