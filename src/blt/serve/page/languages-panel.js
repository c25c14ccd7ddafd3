/**
 * What the same sentence costs the model in several languages.
 * @module
 */

import * as api from "./api.js";
import { encode, toBase64 } from "./bytes.js";
import { byId, el, isAbort, Notice } from "./dom.js";
import { LANGUAGES } from "./samples.js";

/** @typedef {{name: string, lang: string, text: string, own?: boolean, score?: any}} Row */

export class LanguagesPanel {
  /** @type {Row[]} */
  #rows = LANGUAGES.map((language) => ({ ...language }));
  #abort = new AbortController();

  constructor() {
    this.notice = new Notice(byId("languages-notice"));
    byId("measure").addEventListener("click", () => this.measure());
    byId("own-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#add();
    });
    this.#draw();
  }

  #add() {
    const text = byId("own-text");
    if (!text.value.trim()) return text.focus();
    this.#rows.push({ name: byId("own-name").value || "My text", lang: "", text: text.value, own: true });
    text.value = byId("own-name").value = "";
    this.measure();
  }

  /** Score, one after the other, what has no score yet. */
  async measure() {
    this.#abort.abort();
    const { signal } = (this.#abort = new AbortController());
    byId("measure").disabled = true;
    try {
      for (const row of this.#rows.filter((row) => !row.score)) {
        this.notice.say(`Reading ${row.name} …`);
        row.score = await api.score(toBase64(encode(row.text)), { signal, onWait: (m) => this.notice.say(m) });
        this.#draw();
      }
      this.notice.say(`${this.#rows.length} texts read.`);
    } catch (error) {
      if (!isAbort(error)) this.notice.fail(error, () => this.measure());
    } finally {
      byId("measure").disabled = false;
    }
  }

  #draw() {
    const english = this.#rows[0].score?.patches;
    const most = Math.max(1, ...this.#rows.map((row) => ratio(row, english) ?? 0));
    byId("languages-body").replaceChildren(...this.#rows.map((row) => this.#rowOf(row, english, most)));
  }

  #rowOf(row, english, most) {
    const { bytes, patches, bits_per_byte: bits } = row.score ?? {};
    const times = ratio(row, english);
    const cells = {
      bytes, patches, "bytes per patch": patches && (bytes / patches).toFixed(2), "bits per byte": bits?.toFixed(2),
    };
    return el("tr", {},
      el("th", { scope: "row" }, row.name, el("small", { lang: row.lang, dir: "auto" }, row.text), ...this.#remover(row)),
      ...Object.entries(cells).map(([label, value]) =>
        el("td", { class: row.score ? "number" : "number empty", "data-label": label }, String(value ?? "–"))),
      el("td", { class: times === null ? "number cost empty" : "number cost", "data-label": "the patches of English" }, times === null ? "–" : `${times.toFixed(2)} ×`, barOf(times, most)));
  }

  /** A button that takes away a row of the reader's own. */
  #remover(row) {
    if (!row.own) return [];
    const button = el("button", { type: "button", class: "quiet" }, "Remove");
    button.setAttribute("aria-label", `Remove ${row.name}`);
    button.addEventListener("click", () => {
      this.#rows = this.#rows.filter((other) => other !== row);
      this.#draw();
      byId("own-name").focus();
    });
    return [button];
  }
}

/** Patches for each patch of the English text. @param {Row} row @param {number|undefined} english */
function ratio(row, english) {
  return row.score && english ? row.score.patches / english : null;
}

/** @param {number|null} value @param {number} most */
function barOf(value, most) {
  const bar = el("span", { class: "bar", "aria-hidden": "true" });
  bar.style.width = `${(100 * (value ?? 0)) / most}%`;
  return bar;
}
