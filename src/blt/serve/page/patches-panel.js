/**
 * Type, and see the text cut into patches.
 * @module
 */

import * as api from "./api.js";
import { capped, encode, hex, parseHex, toBase64, toBoxText, toHex, units } from "./bytes.js";
import { Curve } from "./curve.js";
import { byId, debounced, el, isAbort, Notice, offer, oncePerFrame } from "./dom.js";
import { showPiece, spoken } from "./inspector.js";
import { knows, meanSize, patchCount, patchIds, startsAt, thresholdFor } from "./patching.js";
import { showRules, startsOf } from "./rules.js";
import { EXAMPLES } from "./samples.js";
import { PatchView } from "./view.js";

const MOST_CHARACTERS = 20000;
const PAUSE = 150; // milliseconds without typing before the server is asked
const SLOW = 400; // milliseconds without an answer before the page says what it waits for
const MOST_ROWS = 500; // of the table of values
const RESULTS = ["facts", "patch-view", "plot", "rules-result"]; // what is drawn of an answer

/**
 * Tell how what is drawn is related to what is in the box.
 * @param {"current"|"waiting"|"stale"} state waiting: an answer is on its way; stale: none came
 */
export function markResults(state) {
  for (const id of RESULTS) {
    byId(id).setAttribute("aria-busy", String(state === "waiting"));
    byId(id).classList.toggle("stale", state === "stale");
  }
}

/** @typedef {{bytes: Uint8Array, units: import("./bytes.js").Unit[], entropies: number[],
 *   surprise: number[], modelStarts: boolean[], serverStarts: Object<string, boolean[]>}} Answer
 * serverStarts: by rules that this page does not know */

export class PatchesPanel {
  /** @type {Answer|null} */
  #answer = null;
  /** @type {boolean[]} */
  #starts = [];
  #abort = new AbortController();
  #remark = ""; // about what is in the box, until that changes
  #theta = 0; // in nats: of any value until the slider is moved, which has steps

  /** @param {{kind: string, rule?: string, threshold?: number, max_prompt_bytes?: number,
   *   parameters: Record<string, number>, rules: import("./patching.js").RuleCard[]}} model */
  constructor(model) {
    this.model = model;
    this.text = byId("text");
    this.notice = new Notice(byId("patches-notice"));
    this.view = new PatchView(byId("patch-view"), (piece, chosen) => this.#inspect(piece, chosen));
    this.curve = new Curve(byId("curve"), byId("curve-axis"), (at) => this.view.activate(this.view.indexAt(at), false));
    this.say = debounced(() => (byId("patches-summary").textContent = this.#summary()), 800);
    this.#setUpNote();
    this.#setUpRules();
    this.#setUpControls();
    this.#setUpExamples();
    this.ask();
  }

  /** What cuts, where that is not how unsure the entropy model is. */
  #setUpNote() {
    const { kind, rule = "" } = this.model;
    if (kind !== "blt" || rule.startsWith("entropy")) return;
    const says = rule === "lookup" ? "A table of the last bytes says" : "The model’s own rule says";
    byId("patches-note").textContent =
      `${says} where a patch starts. The curve is of another model, which only guesses: how unsure it is of each byte ` +
      "before it reads it. By its thresholds patches can be cut as well.";
  }

  /** The rules that the server has: to choose from, and explained. */
  #setUpRules() {
    for (const { rule, about } of this.model.rules) {
      byId("rule").append(el("option", { value: rule }, rule));
      byId("rules-explained").append(el("dt", {}, rule), el("dd", {}, about));
    }
  }

  /** What a rule takes; the model's own shows its threshold, if it has one. @param {string} rule */
  #parametersOf(rule) {
    if (rule === "model") return typeof this.model.threshold === "number" ? ["threshold"] : [];
    return this.model.rules.find((card) => card.rule === rule).parameters;
  }

  #setUpControls() {
    const typed = debounced(() => this.ask(), PAUSE);
    const recut = oncePerFrame(() => this.#cut());
    this.text.addEventListener("input", () => {
      this.#remark = "";
      typed();
    });
    for (const id of ["as-text", "as-hex"]) byId(id).addEventListener("change", () => this.#convert());
    for (const id of ["theta", "theta-add", "stride"]) {
      byId(id).addEventListener("input", () => {
        if (id === "theta") this.#moveTheta();
        recut();
      });
    }
    byId("rule").addEventListener("change", () => this.#changeRule());
    byId("show-bytes").addEventListener("change", () => this.#cut());
    byId("values").addEventListener("toggle", () => this.#fillValues());
    this.#setTheta(this.#modelThreshold());
  }

  /** @param {number} nats */
  #setTheta(nats) {
    this.#theta = nats;
    byId("theta").value = nats;
  }

  /** A threshold of one's own is a rule of one's own. */
  #moveTheta() {
    this.#theta = Number(byId("theta").value);
    if (byId("rule").value === "model") byId("rule").value = "entropy";
  }

  /** The model's own or, where it has none, that of the released BLT. */
  #modelThreshold() {
    return this.model.threshold ?? 1.3354;
  }

  #setUpExamples() {
    offer(byId("examples"), EXAMPLES, ({ text, hex: digits }) => {
      byId(digits ? "as-hex" : "as-text").checked = true;
      this.text.value = digits ?? text;
      this.#remark = "";
      this.ask();
    });
  }

  /** Write what is in the box the other way, as text or as digits; what is no text stays digits. */
  #convert() {
    try {
      const { value } = this.text;
      this.text.value = byId("as-hex").checked ? toHex(encode(value)) : toBoxText(parseHex(value));
      this.#remark = "";
    } catch (error) {
      byId("as-hex").checked = true;
      this.#remark = error.message;
    }
    this.ask();
  }

  /** Ask for the entropies of what is in the box; an answer that is late is dropped. */
  async ask() {
    this.#abort.abort();
    const abort = (this.#abort = new AbortController());
    const slow = setTimeout(() => this.notice.say("The server is reading the text …"), SLOW);
    markResults("waiting");
    try {
      this.notice.clear();
      const { bytes, note: left } = this.#read();
      const note = [this.#remark, left].filter(Boolean).join(" ");
      this.notice.say(note);
      const onWait = (message) => {
        clearTimeout(slow);
        this.notice.say(message);
      };
      const unknown = this.model.rules.filter(({ rule }) => !knows(rule)).map(({ rule }) => ({ rule }));
      const answer = await api.patches(toBase64(bytes), [{ rule: "model" }, ...unknown], { signal: abort.signal, onWait });
      if (abort.signal.aborted) return;
      this.notice.say(note);
      this.#show(bytes, answer);
    } catch (error) {
      if (!isAbort(error)) this.#fail(error);
    } finally {
      clearTimeout(slow);
    }
  }

  /** What is drawn stays, paler: it is no longer what is in the box. */
  #fail(error) {
    this.notice.fail(error, error instanceof api.ApiError ? () => this.ask() : undefined);
    markResults("stale");
  }

  /** The bytes in the box, as many as can be shown, and a note if there are more. */
  #read() {
    const most = this.model.max_prompt_bytes ?? Infinity;
    if (!byId("as-hex").checked) {
      const { bytes, left } = capped(this.text.value, MOST_CHARACTERS, most);
      return { bytes, note: noteOf(left, "characters") };
    }
    const all = parseHex(this.text.value);
    const bytes = all.subarray(0, Math.min(most, MOST_CHARACTERS));
    return { bytes, note: noteOf(all.length - bytes.length, "bytes") };
  }

  #show(bytes, { entropies, surprise, patches }) {
    const [modelStarts, ...others] = patches.map(({ starts }) => startsAt(starts, bytes.length));
    const serverStarts = Object.fromEntries(others.map((starts, i) => [patches[i + 1].rule, starts]));
    this.#answer = { bytes, units: units(bytes), entropies, surprise, modelStarts, serverStarts };
    markResults("current");
    this.curve.draw(bytes, this.#answer.units, entropies);
    this.#cut();
    byId("patch-inspector").replaceChildren(el("p", { class: "hint" }, byId("patch-inspector").dataset.hint));
    this.#fillValues();
  }

  /**
   * Another entropy rule begins with the threshold that makes as many patches as there are, the
   * model's with its own.
   */
  #changeRule() {
    const rule = this.#rule();
    const own = this.#modelThreshold();
    const isOwn = rule.rule === this.model.rule && this.#theta === own; // not moved
    if (rule.rule === "model" || isOwn) {
      this.#setTheta(own);
    } else if (this.#answer?.entropies.length && this.#parametersOf(rule.rule).includes("threshold")) {
      this.#setTheta(thresholdFor(rule, this.#answer.entropies, Math.max(1, patchCount(this.#starts))));
    }
    this.#cut();
  }

  /**
   * What is set; the longest patch is that of a model that cuts by entropies, as the server has it.
   * @returns {import("./patching.js").Rule}
   */
  #rule() {
    return {
      rule: byId("rule").value,
      threshold: this.#theta,
      threshold_add: Number(byId("theta-add").value),
      stride: Number(byId("stride").value),
      max_patch_length: this.model.rule?.startsWith("entropy") ? this.model.parameters.max_patch_length : undefined,
    };
  }

  /** Cut what was answered by the rule that is set, without asking again. */
  #cut() {
    const rule = this.#rule();
    this.#showControls(rule);
    if (!this.#answer) return;
    this.#starts = startsOf(rule, this.#answer);
    this.view.draw({ ...this.#answer, starts: this.#starts, showBytes: byId("show-bytes").checked });
    this.#showNumbers();
    this.curve.cut(this.#lineOf(rule), this.#starts, this.#curveSummary());
    showRules(byId("rules-body"), this.#answer, rule, this.#starts, this.model);
    this.say();
  }

  /** Where the curve's line is; the rise of the entropy has none. */
  #lineOf({ rule, threshold }) {
    if (rule === "model") return this.model.rule === "entropy" ? (this.model.threshold ?? null) : null;
    return rule === "entropy" || rule === "entropy-combined" ? threshold : null;
  }

  #showControls({ rule, threshold, threshold_add, stride }) {
    const taken = this.#parametersOf(rule);
    byId("theta-control").hidden = !taken.includes("threshold");
    byId("theta-add-control").hidden = !taken.includes("threshold_add");
    byId("stride-control").hidden = !taken.includes("stride");
    byId("theta-value").textContent = threshold.toFixed(3);
    byId("theta-add-value").textContent = threshold_add.toFixed(2);
    byId("stride-value").textContent = String(stride);
  }

  #showNumbers() {
    const mean = meanSize(this.#starts).toFixed(2);
    byId("count-bytes").textContent = this.#starts.length.toLocaleString("en");
    byId("count-patches").textContent = patchCount(this.#starts).toLocaleString("en");
    byId("mean-size").textContent = mean;
    byId("theta").setAttribute("aria-valuetext", `${byId("theta-value").textContent} nats: ${mean} bytes per patch`);
  }

  #summary() {
    return `${this.#starts.length} bytes in ${patchCount(this.#starts)} patches, ${meanSize(this.#starts).toFixed(2)} bytes per patch.`;
  }

  #curveSummary() {
    const { entropies } = /** @type {Answer} */ (this.#answer);
    if (!entropies.length) return "No bytes, no curve.";
    const highest = entropies.reduce((best, value, i) => (value > entropies[best] ? i : best), 0);
    const mean = entropies.reduce((sum, value) => sum + value, 0) / entropies.length;
    return `Uncertainty before each byte: ${mean.toFixed(2)} nats on average, highest at byte ${highest} ` +
      `with ${entropies[highest].toFixed(2)}. ${this.#summary()}`;
  }

  #inspect(piece, chosen) {
    const { bytes, entropies, surprise } = /** @type {Answer} */ (this.#answer);
    const ids = patchIds(this.#starts);
    const title = titleOf(piece, ids);
    showPiece(byId("patch-inspector"), piece, bytes, [
      ...(piece.cut ? [{ name: "patch", cell: (i) => String(ids[i] + 1) }] : []),
      { name: "uncertainty, nats", cell: (i) => entropies[i].toFixed(2) },
      { name: "surprise, bits", cell: (i) => surprise[i].toFixed(2) },
    ], title);
    this.curve.highlight(piece.start, piece.end, chosen);
    return `${spoken(piece, bytes)}: ${title}, ${entropies[piece.start].toFixed(2)} nats`;
  }

  /** The curve as a table, made only when somebody looks. */
  #fillValues() {
    if (!byId("values").open || !this.#answer) return;
    const { bytes, entropies, surprise } = this.#answer;
    const rows = Array.from(bytes.subarray(0, MOST_ROWS), (byte, i) =>
      el("tr", {}, ...[i, hex(byte), entropies[i].toFixed(3), surprise[i].toFixed(3)].map((value) => el("td", {}, String(value)))));
    byId("values-body").replaceChildren(...rows);
  }
}

/** @param {number} left out @param {string} what */
function noteOf(left, what) {
  return left ? `Too long to show as a whole: the last ${left} ${what} are left out.` : "";
}

/** @param {import("./patching.js").Piece} piece @param {number[]} ids */
function titleOf(piece, ids) {
  const [first, last] = [ids[piece.start] + 1, ids[piece.end - 1] + 1];
  const size = piece.end - piece.start;
  const bytes = `${size} ${size === 1 ? "byte" : "bytes"}`;
  if (first !== last) return `A character of ${bytes} in patches ${first} to ${last}`;
  return `Patch ${first}, ${bytes}`;
}
