/**
 * Let the model write, and see the patches form.
 * @module
 */

import * as api from "./api.js";
import { byteName, fromBase64, units } from "./bytes.js";
import { byId, el, isAbort, limit, Notice, offer, oncePerFrame } from "./dom.js";
import { showPiece, spoken } from "./inspector.js";
import { meanSize, patchCount, patchIds } from "./patching.js";
import { BEGINNINGS } from "./samples.js";
import { PatchView } from "./view.js";

const ALTERNATIVES = 5; // for each byte

/** @typedef {{bytes: number[], starts: boolean[], logprobs: number[], top: [number, number][][],
 *   marks: import("./view.js").Mark[]}} Written */

export class WritePanel {
  /** @type {Written} */
  #written = nothing();
  /** @type {AbortController|null} */
  #abort = null;

  /** @param {{id: string, kind: string, max_bytes: number}} model */
  constructor(model) {
    this.model = model;
    limit(byId("max-bytes"), model.max_bytes);
    this.notice = new Notice(byId("write-notice"));
    this.view = new PatchView(byId("written"), (piece) => this.#inspect(piece));
    this.show = oncePerFrame(() => this.#draw());
    byId("write-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.write();
    });
    offer(byId("beginnings"), BEGINNINGS, (sample) => this.#beginWith(sample));
    byId("stop").addEventListener("click", () => this.#abort?.abort());
    byId("draft-control").hidden = model.kind !== "blt"; // nothing else can guess ahead
  }

  /** Put a beginning in; what is written meanwhile goes on. @param {import("./samples.js").Sample} sample */
  #beginWith({ title, text }) {
    byId("prompt").value = text;
    if (!byId("write").disabled) this.notice.say(`${title} is in the box. “Write” goes on from it.`);
  }

  async write() {
    const abort = (this.#abort = new AbortController());
    this.#begin();
    try {
      const options = { signal: abort.signal, onWait: (message) => this.notice.say(message) };
      for await (const chunk of api.complete(this.#request(), options)) this.#take(chunk.choices?.[0]);
      this.notice.say("Finished.");
    } catch (error) {
      if (isAbort(error)) this.notice.say(`Stopped after ${this.#written.bytes.length} bytes.`);
      else this.notice.fail(error, () => this.write());
    } finally {
      this.#setBusy(false);
    }
  }

  #begin() {
    this.#written = nothing();
    byId("written-prompt").textContent = byId("prompt").value;
    byId("write-inspector").replaceChildren(el("p", { class: "hint" }, byId("write-inspector").dataset.hint));
    this.notice.say("Writing …");
    this.#setBusy(true);
    this.#draw();
  }

  #request() {
    return {
      model: this.model.id,
      prompt: byId("prompt").value,
      max_tokens: Number(byId("max-bytes").value),
      temperature: Number(byId("temperature").value),
      seed: Number(byId("seed").value),
      draft_bytes: this.model.kind === "blt" ? Number(byId("draft").value) : 0,
      valid_utf8: byId("valid-utf8").checked,
      logprobs: ALTERNATIVES,
      patches: true,
    };
  }

  /** @param {{blt?: object}|undefined} choice of a chunk */
  #take(choice) {
    if (!choice?.blt) return;
    if (!this.#written.bytes.length) this.notice.say("Writing …"); // it may have had to wait
    const { bytes, starts, logprobs, top, drafted } = choice.blt;
    const fresh = fromBase64(bytes);
    this.#written.bytes.push(...fresh);
    this.#written.starts.push(...starts);
    this.#written.logprobs.push(...logprobs);
    this.#written.top.push(...(top ?? Array.from(fresh, () => [])));
    this.#written.marks.push(...Array.from(fresh, (_, i) => markOf(drafted?.[i])));
    this.show();
  }

  #draw() {
    const { bytes, starts, marks } = this.#written;
    const data = Uint8Array.from(bytes);
    byId("output").hidden = !bytes.length;
    this.view.draw({ bytes: data, units: units(data), starts, marks });
    byId("write-bytes").textContent = bytes.length.toLocaleString("en");
    byId("write-size").textContent = meanSize(starts).toFixed(2);
    byId("write-patches").textContent = patchCount(starts).toLocaleString("en");
    byId("write-drafts").textContent = marks.some(Boolean) ? draftsOf(marks) : "";
  }

  #setBusy(busy) {
    byId("written").setAttribute("aria-busy", String(busy));
    byId("write").disabled = busy;
    byId("stop").disabled = !busy;
  }

  #inspect(piece) {
    const { bytes, starts, logprobs, top, marks } = this.#written;
    const data = Uint8Array.from(bytes);
    const patch = patchIds(starts)[piece.start] + 1;
    const rows = [
      { name: "probability", cell: (i) => percent(logprobs[i]) },
      { name: "most likely", cell: (i) => alternatives(top[i], bytes[i]) },
    ];
    if (marks.some(Boolean)) rows.push({ name: "draft", cell: (i) => marks[i] ?? "–" });
    showPiece(byId("write-inspector"), piece, data, rows, `Patch ${patch} of what was written`);
    return `${spoken(piece, data)}: patch ${patch}, first byte ${percent(logprobs[piece.start])}`;
  }
}

/** @returns {Written} */
function nothing() {
  return { bytes: [], starts: [], logprobs: [], top: [], marks: [] };
}

/** @param {null|string} drafted as the server says it @returns {import("./view.js").Mark} */
function markOf(drafted) {
  if (!drafted) return null;
  return drafted === "accepted" ? "accepted" : "replaced";
}

/** @param {import("./view.js").Mark[]} marks */
function draftsOf(marks) {
  const accepted = marks.filter((mark) => mark === "accepted").length;
  const replaced = marks.filter((mark) => mark === "replaced").length;
  return `· ${accepted} guesses accepted, ${replaced} replaced`;
}

/** @param {number} logprob in nats */
function percent(logprob) {
  const value = 100 * Math.exp(logprob);
  return value < 0.1 ? "<0.1 %" : `${value.toFixed(value < 10 ? 1 : 0)} %`;
}

/** The bytes that were likely, the one that was written in bold. */
function alternatives(top, written) {
  const lines = top.slice(0, ALTERNATIVES).map(([byte, logprob]) =>
    el("li", byte === written ? { class: "taken" } : {},
      el("span", { class: "byte-name" }, byteName(byte)), " ", percent(logprob)));
  return el("ol", { class: "alternatives" }, ...lines);
}
