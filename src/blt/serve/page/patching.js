/**
 * Patching in the browser: from bytes and entropies to boundaries, by the rules of the library
 * (docs/semantics.md). Pure: nothing here knows of a document.
 * @module
 */

/** @typedef {{rule: string, threshold?: number, threshold_add?: number, stride?: number,
 *   max_patch_length?: number}} Rule */
/** @typedef {import("./bytes.js").Unit} Unit */
/** @typedef {{units: Unit[], start: number, end: number, patch: number, cut: boolean}} Piece
 * Units that are drawn together: all in one patch or, if cut, one that several patches share. */

/** @typedef {{rule: string, about: string, parameters: string[]}} RuleCard what the server says of a rule */

/**
 * Which bytes start a patch.
 * @param {Rule} rule
 * @param {Uint8Array} bytes
 * @param {number[]} entropies in nats, of what each byte will be, before it is read
 * @returns {boolean[]} one per byte
 */
export function decide(rule, bytes, entropies) {
  const holds = predicate(rule, bytes, entropies);
  if (!holds) throw new Error(`unknown rule ${rule.rule}`);
  const { max_patch_length: longest = Infinity } = rule;
  let opened = 0; // the last start by the rule itself
  return Array.from(bytes, (_, i) => {
    if (i === 0 || holds(i)) opened = i;
    return (i - opened) % longest === 0;
  });
}

/** Can this page cut by a rule, or must the server be asked? @param {string} rule */
export function knows(rule) {
  return predicate({ rule }, new Uint8Array(), []) !== undefined;
}

/** Does byte i >= 1 start a patch? In float32, as the library has it; undefined: not known here. */
function predicate({ rule, threshold = 0, threshold_add = 0, stride = 4 }, bytes, entropies) {
  const least = Math.fround(threshold);
  const leastRise = Math.fround(threshold_add);
  const rise = (i) => Math.fround(entropies[i] - entropies[i - 1]);
  switch (rule) {
    case "entropy":
      return (i) => entropies[i] > least;
    case "entropy-monotonic":
      return (i) => rise(i) > least;
    case "entropy-combined":
      return (i) => entropies[i] > least && rise(i) > leastRise;
    case "space":
      return (i) => i > 1 && isSpaceLike(bytes[i - 1]) && !isSpaceLike(bytes[i - 2]);
    case "static":
      return (i) => i % stride === 0;
    case "byte":
      return () => true;
  }
  return undefined;
}

/** Not a Latin letter, a digit or a UTF-8 continuation byte. @param {number} byte */
export function isSpaceLike(byte) {
  const lower = byte | 0x20;
  const letter = byte < 0x80 && lower >= 0x61 && lower <= 0x7a;
  const digit = byte >= 0x30 && byte <= 0x39;
  return !(letter || digit || (byte >= 0x80 && byte <= 0xbf));
}

/** @param {number[]} offsets at which patches start @param {number} length in bytes */
export function startsAt(offsets, length) {
  const starts = new Array(length).fill(false);
  for (const offset of offsets) starts[offset] = true;
  return starts;
}

/** Patch that each byte lies in, from 0. @param {boolean[]} starts */
export function patchIds(starts) {
  let id = -1;
  return starts.map((opens, i) => (id += opens || i === 0 ? 1 : 0));
}

/** @param {boolean[]} starts */
export function patchCount(starts) {
  return starts.reduce((count, opens, i) => count + (opens || i === 0 ? 1 : 0), 0);
}

/** Bytes per patch; 0 of nothing. @param {boolean[]} starts */
export function meanSize(starts) {
  return starts.length / Math.max(1, patchCount(starts));
}

/**
 * The threshold with which an entropy rule makes so many patches, or the fewest above.
 * @param {Rule} rule
 * @param {number[]} entropies
 * @param {number} count of patches, at least 1
 */
export function thresholdFor({ rule, threshold_add = 0 }, entropies, count) {
  const values = [];
  for (let i = 1; i < entropies.length; i++) {
    const rise = Math.fround(entropies[i] - entropies[i - 1]);
    if (rule === "entropy-monotonic") values.push(rise);
    else if (rule === "entropy" || rise > Math.fround(threshold_add)) values.push(entropies[i]);
  }
  const sorted = Float32Array.from(values).sort();
  return sorted.length < count ? 0 : sorted[sorted.length - count];
}

/**
 * Units in pieces, in order and without gaps.
 * @param {Unit[]} units
 * @param {boolean[]} starts
 * @returns {Piece[]}
 */
export function pieces(units, starts) {
  const ids = patchIds(starts);
  /** @type {Piece[]} */
  const found = [];
  for (const unit of units) {
    const cut = ids[unit.start] !== ids[unit.end - 1];
    const last = found.at(-1);
    if (last && !cut && !last.cut && last.patch === ids[unit.start]) {
      last.units.push(unit);
      last.end = unit.end;
    } else {
      found.push({ units: [unit], start: unit.start, end: unit.end, patch: ids[unit.start], cut });
    }
  }
  return found;
}
