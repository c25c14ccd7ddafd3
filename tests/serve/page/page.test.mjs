// The page's pure modules: `node --test tests/serve/page/page.test.mjs`, Node 20.19 or later.
import assert from "node:assert/strict";
import { test } from "node:test";

import * as bytes from "../../../src/blt/serve/page/bytes.js";
import * as patching from "../../../src/blt/serve/page/patching.js";
import { BEGINNINGS, EXAMPLES } from "../../../src/blt/serve/page/samples.js";
import { EventReader } from "../../../src/blt/serve/page/sse.js";

/** Reproducible bytes: any, or those of characters of 1 to 4 bytes, in turns. */
function* samples() {
  let state = 1;
  const random = (below) => (state = (state * 48271) % 2147483647) % below;
  const characters = ["a", " ", "\n", "\r\n", "é", "क्षि", "سلام", "漢", "👩‍👩‍👧‍👦", "e\u0301", "\u202e", "\ufeff", "\0"];
  for (let round = 0; round < 300; round++) {
    const length = random(30);
    yield round % 2
      ? Uint8Array.from({ length }, () => random(256))
      : bytes.encode(Array.from({ length }, () => characters[random(characters.length)]).join(""));
  }
}

test("units hold all bytes in order, and their text is theirs", () => {
  for (const data of samples()) {
    let at = 0;
    for (const unit of bytes.units(data)) {
      assert.equal(unit.start, at);
      const held = data.subarray(unit.start, unit.end);
      if (unit.text === null) assert.equal(held.length, 1);
      else assert.deepEqual(bytes.encode(unit.text), new Uint8Array(held));
      at = unit.end;
    }
    assert.equal(at, data.length);
  }
});

test("a byte is drawn by itself exactly where a strict decoder finds no UTF-8", () => {
  const strict = new TextDecoder("utf-8", { fatal: true });
  for (const data of samples()) {
    const valid = bytes.units(data).every((unit) => unit.text !== null);
    if (valid) assert.doesNotThrow(() => strict.decode(data));
    else assert.throws(() => strict.decode(data));
  }
});

test("what readers see as one character is one unit", () => {
  for (const text of ["👩‍👩‍👧‍👦", "🏳️‍🌈", "e\u0301", "कि", "سلام", "한"]) {
    assert.equal(bytes.units(bytes.encode(text)).length, 1, text);
  }
  assert.equal(bytes.units(bytes.encode("\r\n")).length, 2);
  assert.ok(bytes.units(bytes.encode("a" + "\u0301".repeat(5000))).length > 100);
});

test("what cannot be seen gets a name", () => {
  const shown = (text) => bytes.units(bytes.encode(text)).map((unit) => bytes.glyph(unit, bytes.encode(text)).text);
  assert.deepEqual(shown("\0\x1b\t\x7f"), ["NUL", "ESC", "TAB", "DEL"]);
  assert.deepEqual(shown("\u202e\u00a0\ufeff"), ["U+202E", "U+00A0", "U+FEFF"]);
  assert.deepEqual(shown("\u0301"), ["◌\u0301"]);
  const invalid = Uint8Array.of(0xff);
  assert.equal(bytes.glyph(bytes.units(invalid)[0], invalid).text, "FF");
});

test("base64 and hexadecimal digits go there and back", () => {
  for (const data of samples()) {
    assert.deepEqual(bytes.fromBase64(bytes.toBase64(data)), data);
    assert.deepEqual(bytes.parseHex(bytes.toHex(data)), data);
  }
  assert.deepEqual(bytes.parseHex("0xFF, \\x00 a0"), Uint8Array.of(255, 0, 160));
  assert.throws(() => bytes.parseHex("4G"), /“G” is no hexadecimal digit/);
  assert.throws(() => bytes.parseHex("123"), /half a byte/);
});

test("bytes become the text of a box only where the box would give them back", () => {
  for (const text of ["", "é漢👩‍👩‍👧‍👦\n\t\0\ufeff", "plain"]) assert.equal(bytes.toBoxText(bytes.encode(text)), text);
  assert.throws(() => bytes.toBoxText(Uint8Array.of(0x61, 0xc3, 0x28)), /Byte 1 \(C3\) begins no character/);
  assert.throws(() => bytes.toBoxText(Uint8Array.of(0xed, 0xa0, 0x80)), /Byte 0 \(ED\)/);
  assert.throws(() => bytes.toBoxText(bytes.encode("a\r\nb")), /no carriage returns/);
});

test("a text is capped between characters", () => {
  const capped = (characters, most) => {
    const { bytes: kept, left } = bytes.capped("a😀b", characters, most);
    return [bytes.decode(kept), left];
  };
  assert.deepEqual(capped(2, 100), ["a😀", 1]);
  assert.deepEqual(capped(3, 6), ["a😀b", 0]);
  assert.deepEqual(capped(3, 4), ["a", 2]);
});

test("pieces hold all bytes in order, each in one patch unless it is cut", () => {
  for (const data of samples()) {
    const starts = Array.from(data, (byte, i) => i === 0 || byte % 3 === 0);
    const ids = patching.patchIds(starts);
    let at = 0;
    for (const piece of patching.pieces(bytes.units(data), starts)) {
      assert.equal(piece.start, at);
      assert.equal(piece.cut, ids[piece.start] !== ids[piece.end - 1]);
      if (piece.cut) assert.equal(piece.units.length, 1);
      at = piece.end;
    }
    assert.equal(at, data.length);
  }
});

test("patch sizes are as counted", () => {
  const starts = patching.startsAt([0, 2, 3], 6);
  assert.deepEqual(patching.patchIds(starts), [0, 0, 1, 2, 2, 2]);
  assert.equal(patching.patchCount(starts), 3);
  assert.equal(patching.meanSize(starts), 2);
  assert.equal(patching.meanSize([]), 0);
});

test("the threshold for a number of patches makes that number", () => {
  const entropies = Array.from({ length: 50 }, (_, i) => Math.fround(((i * 37) % 50) / 10));
  const data = new Uint8Array(50);
  for (const rule of ["entropy", "entropy-monotonic", "entropy-combined"]) {
    for (const count of [1, 2, 10]) {
      const threshold = patching.thresholdFor({ rule, threshold_add: 0.1 }, entropies, count);
      const starts = patching.decide({ rule, threshold, threshold_add: 0.1 }, data, entropies);
      // Equal values stand or fall together.
      assert.ok(patching.patchCount(starts) <= count && patching.patchCount(starts) > count - 5);
    }
  }
});

test("events come whole, wherever the stream is cut", () => {
  const stream = 'data: {"a": 1}\n\n: still here\n\ndata: x\r\n\r\ndata: [DONE]\n\n';
  for (let at = 0; at <= stream.length; at++) {
    const reader = new EventReader();
    const events = [...reader.push(stream.slice(0, at)), ...reader.push(stream.slice(at))];
    assert.deepEqual(events, ['{"a": 1}', "x", "[DONE]"]);
  }
});

const IN_ENGLISH = new Set(["English", "Python", "JSON", "Emoji", "Any bytes"]); // the others are languages
const SCRIPTS = { Jpan: ["Hani", "Hira", "Kana"], Kore: ["Hang"], Hans: ["Hani"] }; // of which others consist

/** Is every letter of the language's own script? @param {string} text @param {string} lang */
function isWrittenIn(text, lang) {
  const { script } = new Intl.Locale(lang).maximize();
  const letter = new RegExp(`^[${(SCRIPTS[script] ?? [script]).map((name) => `\\p{sc=${name}}`).join("")}]$`, "u");
  return [...text].filter((char) => /\p{L}/u.test(char)).every((char) => letter.test(char));
}

test("every sample is a text that boxes hold, or bytes", () => {
  for (const { name, text, hex } of [...BEGINNINGS, ...EXAMPLES]) {
    if (hex) assert.ok(bytes.parseHex(hex).length, name);
    else assert.ok(text.trim() && text.isWellFormed() && bytes.toBoxText(bytes.encode(text)) === text, name);
  }
});

test("beginnings end where a word or a line may go on, examples say the whole sentence", () => {
  const whole = new Map(EXAMPLES.map(({ name, text }) => [name, text]));
  for (const { name, lang, text } of BEGINNINGS) {
    assert.ok(!/[\s.。։።।]$/u.test(text), name);
    if (!IN_ENGLISH.has(name)) assert.ok(whole.get(name).startsWith(text) && whole.get(name).length > text.length, name);
  }
});

test("a language is called by its own name, and written in its own script", () => {
  for (const { name, lang, text } of [...BEGINNINGS, ...EXAMPLES]) {
    if (IN_ENGLISH.has(name)) assert.equal(lang, "en");
    else {
      assert.equal(name.toLowerCase(), new Intl.DisplayNames([lang], { type: "language" }).of(lang).toLowerCase());
      assert.ok(isWrittenIn(text, lang), name);
    }
  }
});

test("what runs from right to left says so, and nothing else does", () => {
  for (const { name, dir, text } of [...BEGINNINGS, ...EXAMPLES]) {
    assert.equal(dir === "rtl", bytes.isRightToLeft(text ?? null), name);
  }
});
