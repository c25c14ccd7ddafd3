/**
 * The entropy curve over the bytes of a text, with the threshold and the patches below it.
 * @module
 */

import { glyph, hex } from "./bytes.js";
import { svg } from "./dom.js";
import { patchIds } from "./patching.js";

const HEIGHT = 132; // of the plot, in pixels; characters and patches come below
const WIDE = 16; // pixels per byte where there is room for characters
const MOST = 12000; // pixels; longer texts are drawn denser
const TONES = 4;

/** Draws into a div that scrolls. */
export class Curve {
  /** @param {HTMLElement} scroll @param {HTMLElement} axis @param {(offset: number) => void} point */
  constructor(scroll, axis, point) {
    this.scroll = scroll;
    this.axis = axis;
    this.picture = null;
    scroll.addEventListener("pointermove", (event) => {
      const offset = this.#offsetOf(event);
      if (offset !== null) point(offset);
    });
  }

  /** A new text. @param {Uint8Array} bytes @param {import("./bytes.js").Unit[]} units @param {number[]} entropies */
  draw(bytes, units, entropies) {
    this.count = bytes.length;
    this.step = Math.min(WIDE, MOST / Math.max(1, bytes.length));
    this.top = Math.max(3, ...binned(entropies, 2000)) * 1.06; // nats at the upper edge
    const width = Math.max(1, Math.ceil(this.count * this.step));
    const labels = this.step === WIDE ? characterLabels(units, bytes) : [];
    const height = HEIGHT + (labels.length ? 46 : 18);
    const area = this.#area(entropies);
    this.above = svg("rect", { x: 0, y: 0, width, height: 0 });
    this.line = svg("line", { x1: 0, x2: width, class: "theta" });
    this.band = svg("rect", { y: 0, height, width: 0, class: "band" });
    this.ribbon = svg("g", { transform: `translate(0 ${HEIGHT + 4})` });
    this.picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" },
      svg("clipPath", { id: "above-theta" }, this.above), this.band, this.#grid(width),
      svg("path", { d: area, class: "area" }),
      svg("path", { d: area, class: "area over", "clip-path": "url(#above-theta)" }),
      this.line, this.ribbon, svg("g", { transform: `translate(0 ${HEIGHT + 30})` }, ...labels));
    this.scroll.replaceChildren(this.picture);
    this.#drawAxis();
  }

  /**
   * Another threshold, or other patches, of the same text.
   * @param {number|null} theta null: the rule has none
   * @param {boolean[]} starts
   * @param {string} summary in words
   */
  cut(theta, starts, summary) {
    const y = theta === null ? 0 : Math.min(Math.max(this.#y(theta), 0), HEIGHT);
    this.above.setAttribute("height", String(y));
    this.line.setAttribute("y1", String(y));
    this.line.setAttribute("y2", String(y));
    this.line.toggleAttribute("hidden", theta === null);
    this.ribbon.replaceChildren(...this.#ribbonPaths(starts));
    this.picture.setAttribute("aria-label", summary);
  }

  /** Show where bytes start..end are. @param {number} start @param {number} end @param {boolean} scroll */
  highlight(start, end, scroll) {
    this.band.setAttribute("x", String(start * this.step));
    this.band.setAttribute("width", String((end - start) * this.step));
    if (scroll) this.scroll.scrollLeft = (start * this.step) - this.scroll.clientWidth / 3;
  }

  #offsetOf(event) {
    if (!this.picture) return null;
    const offset = Math.floor((event.clientX - this.picture.getBoundingClientRect().left) / this.step);
    return offset >= 0 && offset < this.count ? offset : null;
  }

  #y(nats) {
    return HEIGHT * (1 - nats / this.top);
  }

  /** Steps as wide as a byte or, in long texts, as a pixel that holds the highest of several. */
  #area(entropies) {
    const values = binned(entropies, MOST);
    const step = (this.count * this.step) / Math.max(1, values.length);
    const points = values.map((value, i) => `V${this.#y(value).toFixed(1)}H${((i + 1) * step).toFixed(1)}`);
    return `M0 ${HEIGHT}${points.join("")}V${HEIGHT}Z`;
  }

  #grid(width) {
    const lines = this.#ticks().map((nats) => svg("line", { x1: 0, x2: width, y1: this.#y(nats), y2: this.#y(nats) }));
    return svg("g", { class: "grid" }, ...lines);
  }

  #ticks() {
    return Array.from({ length: Math.floor(this.top) + 1 }, (_, i) => i);
  }

  #drawAxis() {
    const labels = this.#ticks().map((nats) => svg("text", { x: 18, y: this.#y(nats) + 4 }, String(nats)));
    this.axis.replaceChildren(svg("svg", { width: 24, height: HEIGHT + 8, "aria-hidden": "true" }, ...labels));
  }

  /** The patches as bars, all of one colour in one path. */
  #ribbonPaths(starts) {
    const paths = Array.from({ length: TONES }, () => "");
    const ids = patchIds(starts);
    for (let start = 0; start < ids.length; ) {
      let end = start + 1;
      while (end < ids.length && ids[end] === ids[start]) end++;
      const gap = Math.min(1, this.step / 4);
      paths[ids[start] % TONES] += `M${(start * this.step).toFixed(2)} 0H${(end * this.step - gap).toFixed(2)}V8H${(start * this.step).toFixed(2)}Z`;
      start = end;
    }
    return paths.map((d, tone) => svg("path", { d, class: `tone-${tone}` }));
  }
}

/** At most `count` values, each the highest of its neighbours. @param {number[]} values @param {number} count */
export function binned(values, count) {
  const size = Math.max(1, Math.ceil(values.length / count));
  if (size === 1) return values;
  const highest = [];
  for (let at = 0; at < values.length; at += size) highest.push(Math.max(...values.slice(at, at + size)));
  return highest;
}

/** Characters under their bytes, and under those of several bytes their values. */
function characterLabels(units, bytes) {
  return units.flatMap((unit) => {
    const { text, kind } = glyph(unit, bytes);
    const size = unit.end - unit.start;
    const shown = kind === "space" ? "·" : text;
    const small = kind === "mark" ? "small" : "";
    const labels = [svg("text", { x: (unit.start + size / 2) * WIDE, y: 0, class: small }, shown)];
    for (let i = unit.start; size > 1 && i < unit.end; i++) {
      labels.push(svg("text", { x: (i + 0.5) * WIDE, y: 13, class: "small" }, hex(bytes[i])));
    }
    return labels;
  });
}
