/**
 * Text in patches: drawn, and walked through with pointer or arrow keys.
 * @module
 */

import { glyph, hex, isRightToLeft } from "./bytes.js";
import { el } from "./dom.js";
import { patchIds, pieces } from "./patching.js";

/** @typedef {import("./bytes.js").Unit} Unit */
/** @typedef {import("./patching.js").Piece} Piece */
/** @typedef {null|"accepted"|"replaced"} Mark what became of a drafted byte */
/** @typedef {{bytes: Uint8Array, units: Unit[], starts: boolean[], showBytes?: boolean, marks?: Mark[]}} Drawing */

const TONES = 4;
const LEAP = 10; // pieces, with page up and page down
const AT_ONCE = 3000; // bytes; a long text's rest is drawn once nothing has changed for a while
const REST_AFTER = 200; // milliseconds

/** A listbox whose options are the pieces of a text. */
export class PatchView {
  /** @type {Piece[]} */
  pieces = [];
  #active = -1;
  /** @type {number|undefined} */
  #waiting;

  /**
   * @param {HTMLElement} root
   * @param {(piece: Piece, chosen: boolean) => string} inspect called with the piece under the
   *   pointer or, chosen, the one that was walked to; returns how to call it
   */
  constructor(root, inspect) {
    this.root = root;
    this.inspect = inspect;
    root.addEventListener("pointerover", (event) => this.#point(event, false));
    root.addEventListener("click", (event) => this.#point(event, true));
    root.addEventListener("keydown", (event) => this.#walk(event));
    root.addEventListener("focus", () => this.activate(Math.max(0, this.#active), false));
  }

  /** @param {Drawing} drawing */
  draw(drawing) {
    clearTimeout(this.#waiting);
    this.pieces = pieces(drawing.units, drawing.starts);
    this.root.dir = direction(drawing.units);
    this.#active = -1;
    this.root.removeAttribute("aria-activedescendant");
    const scrolled = this.root.scrollTop;
    const first = this.pieces.findLastIndex((piece) => piece.start < AT_ONCE) + 1;
    this.root.replaceChildren(...this.#options(drawing, 0, first));
    if (first === this.pieces.length) return;
    this.#waiting = setTimeout(() => {
      this.root.append(...this.#options(drawing, first, this.pieces.length));
      this.root.scrollTop = scrolled;
    }, REST_AFTER);
  }

  /** Elements of the pieces first..end. */
  #options(drawing, first, end) {
    const options = draw(drawing, this.pieces.slice(first, end));
    options.forEach((option, index) => {
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", "false");
      option.id = `${this.root.id}-${first + index}`;
      if (!option.textContent?.trim()) option.setAttribute("aria-label", "space");
    });
    return options;
  }

  /** Make a piece the current one. @param {number} index @param {boolean} [chosen] */
  activate(index, chosen = true) {
    const drawn = this.root.children.length;
    if (!drawn) return;
    this.root.children[this.#active]?.setAttribute("aria-selected", "false");
    this.#active = Math.min(Math.max(index, 0), drawn - 1);
    const option = this.root.children[this.#active];
    option.setAttribute("aria-label", this.inspect(this.pieces[this.#active], chosen));
    option.setAttribute("aria-selected", "true");
    this.root.setAttribute("aria-activedescendant", option.id);
    if (chosen) option.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** @param {number} offset of a byte @returns {number} its piece */
  indexAt(offset) {
    return this.pieces.findIndex((piece) => offset < piece.end);
  }

  #point(event, chosen) {
    const option = event.target.closest("[role=option]");
    if (option) this.activate(Number(option.id.slice(this.root.id.length + 1)), chosen);
  }

  #walk(event) {
    const forward = getComputedStyle(this.root).direction === "rtl" ? -1 : 1;
    const steps = {
      ArrowRight: forward, ArrowLeft: -forward, ArrowDown: 1, ArrowUp: -1,
      PageDown: LEAP, PageUp: -LEAP, Home: -Infinity, End: Infinity,
    };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.activate(this.#active + steps[event.key]);
  }
}

/**
 * An element for each piece.
 * @param {Drawing} drawing
 * @param {Piece[]} [parts]
 */
export function draw(drawing, parts = pieces(drawing.units, drawing.starts)) {
  const ids = patchIds(drawing.starts);
  return parts.map((piece) => (piece.cut ? cutPiece(piece, drawing, ids) : wholePiece(piece, drawing, ids)));
}

/** A character that several patches share: itself, and below it its bytes in their patches. */
function cutPiece(piece, drawing, ids) {
  return el("span", { class: "piece cut" }, cell(piece.units[0], drawing, ids));
}

function wholePiece(piece, drawing, ids) {
  const opens = drawing.starts[piece.start] ? "opens" : "";
  const rtl = isRightToLeft(piece.units[0].text) ? "rtl" : "";
  const element = el("span", { class: `piece ${tone(piece.patch)} ${opens} ${rtl}` });
  for (const unit of piece.units) {
    const many = drawing.showBytes && unit.end - unit.start > 1;
    if (many) element.append(cell(unit, drawing, ids));
    else appendGlyph(element, unit, drawing);
  }
  return element;
}

/** Append a glyph, to the text node before it where nothing but text is needed. */
function appendGlyph(element, unit, { bytes, marks }) {
  const { text, kind } = glyph(unit, bytes);
  const mark = worst(marks?.slice(unit.start, unit.end));
  if (kind === "plain" && !mark) {
    const last = element.lastChild;
    if (last instanceof Text) last.appendData(text);
    else element.append(text);
    return;
  }
  element.append(el("span", { class: `${kind} ${mark ?? ""}` }, text));
  if (kind === "newline") element.append("\n");
}

function cell(unit, { bytes, starts, marks }, ids) {
  const { text, kind } = glyph(unit, bytes);
  const row = el("span", { class: "hexes" });
  for (let i = unit.start; i < unit.end; i++) {
    const opens = starts[i] ? "opens" : "";
    row.append(el("span", { class: `hex ${tone(ids[i])} ${opens} ${marks?.[i] ?? ""}` }, hex(bytes[i])));
  }
  const direction = isRightToLeft(unit.text) ? "rtl" : "";
  return el("span", { class: `cell ${direction}` }, el("span", { class: kind }, text), row);
}

/** @param {Mark[]|undefined} marks of a character's bytes */
function worst(marks) {
  return marks?.find((mark) => mark === "replaced") ?? marks?.find(Boolean);
}

/** Of a text as a whole: that of its first letter. @param {Unit[]} units */
export function direction(units) {
  const first = units.find((unit) => unit.text !== null && /\p{L}/u.test(unit.text));
  return first && isRightToLeft(first.text) ? "rtl" : "ltr";
}

/** @param {number} patch */
function tone(patch) {
  return `tone-${patch % TONES}`;
}
