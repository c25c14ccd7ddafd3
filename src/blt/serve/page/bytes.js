/**
 * Bytes, and the characters that are drawn for them. Pure: nothing here knows of a document.
 * @module
 */

/** @typedef {{start: number, end: number, text: string|null}} Unit
 * Bytes start..end that are drawn as one: a character as readers see it (a grapheme cluster), or
 * one byte that is not UTF-8 (text is null). */

const LONGEST_UNIT = 40; // bytes; a longer cluster is drawn character by character
const JOINING = /^[\p{Script=Arabic}\p{Script=Syriac}\p{Script=Nko}\p{Script=Mongolian}]/u;
const INVISIBLE = /^[\p{C}\p{Zl}\p{Zp}\p{Zs}]$/u;
const RTL = /^\P{L}*[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Nko}\p{Script=Thaana}]/u;
const NAMES = ["NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "TAB", "LF", "VT", "FF",
  "CR", "SO", "SI", "DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB",
  "ESC", "FS", "GS", "RS", "US"];

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true }); // a byte order mark is a character too
const segmenter = new Intl.Segmenter(undefined, { granularity: "grapheme" });

/** UTF-8 of a text. @param {string} text @returns {Uint8Array} */
export function encode(text) {
  return encoder.encode(text);
}

/** Text of bytes; what is not UTF-8 becomes U+FFFD. @param {Uint8Array} bytes */
export function decode(bytes) {
  return decoder.decode(bytes);
}

/** @param {number} byte @returns {string} two hexadecimal digits */
export function hex(byte) {
  return byte.toString(16).toUpperCase().padStart(2, "0");
}

/**
 * Bytes written as hexadecimal digits, with or without spaces, commas, 0x or \x.
 * @param {string} text
 * @returns {Uint8Array}
 * @throws {Error} what is no hexadecimal digit, or half a byte
 */
export function parseHex(text) {
  const digits = text.replace(/0x|\\x|[\s,]/gi, "");
  const wrong = digits.search(/[^0-9a-f]/i);
  if (wrong >= 0) throw new Error(`“${[...digits.slice(wrong)][0]}” is no hexadecimal digit`);
  if (digits.length % 2) throw new Error("half a byte is missing: two digits make one");
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** Bytes as hexadecimal digits, for people. @param {Uint8Array} bytes */
export function toHex(bytes) {
  return Array.from(bytes, hex).join(" ");
}

/**
 * Bytes as a text that a box can hold without changing it.
 * @param {Uint8Array} bytes
 * @returns {string}
 * @throws {Error} they are not UTF-8, or hold a carriage return, of which boxes make a newline
 */
export function toBoxText(bytes) {
  for (let at = 0, size; at < bytes.length; at += size) {
    size = characterSize(bytes, at);
    if (!size) throw new Error(`Byte ${at} (${hex(bytes[at])}) begins no character of UTF-8, so the bytes stay hexadecimal.`);
    if (bytes[at] === 0x0d) throw new Error("A box for text holds no carriage returns (0D), so the bytes stay hexadecimal.");
  }
  return decode(bytes);
}

/** @param {Uint8Array} bytes @returns {string} */
export function toBase64(bytes) {
  let binary = "";
  for (let at = 0; at < bytes.length; at += 8192) {
    binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return btoa(binary);
}

/** @param {string} text @returns {Uint8Array} */
export function fromBase64(text) {
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}

/**
 * Bytes of the UTF-8 character at an offset; 0 where there is none (RFC 3629).
 * @param {Uint8Array} bytes
 * @param {number} at
 */
export function characterSize(bytes, at) {
  const lead = bytes[at];
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  const size = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  const lowest = { 0xe0: 0xa0, 0xf0: 0x90 }[lead] ?? 0x80; // no overlong forms
  const highest = { 0xed: 0x9f, 0xf4: 0x8f }[lead] ?? 0xbf; // no surrogates, nothing above U+10FFFF
  if (!(bytes[at + 1] >= lowest && bytes[at + 1] <= highest)) return 0;
  for (let i = at + 2; i < at + size; i++) {
    if (!(bytes[i] >= 0x80 && bytes[i] <= 0xbf)) return 0;
  }
  return size;
}

/**
 * What is drawn as one, in order and without gaps.
 * @param {Uint8Array} bytes
 * @returns {Unit[]}
 */
export function units(bytes) {
  /** @type {Unit[]} */
  const found = [];
  let at = 0;
  while (at < bytes.length) {
    let end = at;
    for (let size; end < bytes.length && (size = characterSize(bytes, end)); ) end += size;
    for (const text of clusters(decode(bytes.subarray(at, end)))) {
      const size = encode(text).length;
      found.push({ start: at, end: at + size, text });
      at += size;
    }
    if (at < bytes.length) found.push({ start: at, end: ++at, text: null });
  }
  return found;
}

/** Grapheme clusters; letters that join to one shape stay together. @param {string} text */
function clusters(text) {
  /** @type {string[]} */
  const found = [];
  let joins = false; // may the last one go on?
  for (const { segment } of segmenter.segment(text)) {
    const joining = JOINING.test(segment);
    const last = found.length - 1;
    if (joining && joins && encode(found[last] + segment).length <= LONGEST_UNIT) {
      found[last] += segment;
    } else if (segment === "\r\n" || encode(segment).length > LONGEST_UNIT) {
      found.push(...segment);
    } else {
      found.push(segment);
    }
    joins = joining;
  }
  return found;
}

/**
 * What to draw for a unit, and how: "plain", "space", "newline", or "mark" (a stand-in for what
 * cannot be seen).
 * @param {Unit} unit
 * @param {Uint8Array} bytes
 * @returns {{text: string, kind: "plain"|"space"|"newline"|"mark"}}
 */
export function glyph({ start, text }, bytes) {
  if (text === null) return { text: hex(bytes[start]), kind: "mark" };
  if (text === " ") return { text, kind: "space" };
  if (text === "\n") return { text: "⏎", kind: "newline" };
  if (INVISIBLE.test(text)) return { text: invisibleName(text), kind: "mark" };
  return { text: /^\p{M}/u.test(text) ? `◌${text}` : text, kind: "plain" };
}

/** @param {string} char one that cannot be seen */
function invisibleName(char) {
  const code = /** @type {number} */ (char.codePointAt(0));
  if (code === 0x7f) return "DEL";
  return NAMES[code] ?? `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
}

/** Does a text run from right to left? @param {string|null} text */
export function isRightToLeft(text) {
  return text !== null && RTL.test(text);
}

/**
 * A byte for people: its character if it is one by itself, else its hexadecimal value.
 * @param {number|null} byte null, or above 255: the end of the text
 */
export function byteName(byte) {
  if (byte === null || byte < 0 || byte > 255) return "end";
  if (byte === 0x20) return "space";
  if (byte < 0x20) return NAMES[byte];
  if (byte === 0x7f) return "DEL";
  return byte < 0x80 ? String.fromCharCode(byte) : hex(byte);
}

/**
 * A text as far as it is shown: whole characters only.
 * @param {string} text
 * @param {number} characters at most
 * @param {number} most bytes
 * @returns {{bytes: Uint8Array, left: number}} its beginning, and how many characters were left out
 */
export function capped(text, characters, most) {
  const all = [...text];
  const bytes = encode(all.slice(0, characters).join(""));
  let end = Math.min(bytes.length, most);
  while (bytes[end] >= 0x80 && bytes[end] <= 0xbf) end--;
  const kept = bytes.subarray(0, end);
  return { bytes: kept, left: all.length - [...decode(kept)].length };
}
