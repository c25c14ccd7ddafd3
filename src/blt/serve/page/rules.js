/**
 * Rules side by side.
 * @module
 */

import { el } from "./dom.js";
import { decide, knows, meanSize, patchCount, thresholdFor } from "./patching.js";
import { direction, draw } from "./view.js";

/** @typedef {import("./patching.js").Rule} Rule */

const MOST_BYTES = 240; // of the text, in each row

/**
 * A row for each rule. What is not chosen gets the threshold or stride that makes about as many
 * patches, so that one sees where the rules cut rather than how finely.
 * @param {HTMLElement} body of the table
 * @param {import("./patches-panel.js").Answer} answer
 * @param {Rule} chosen
 * @param {boolean[]} starts by the chosen rule
 * @param {Partial<Rule>} model its own rule and its parameters
 */
export function showRules(body, answer, chosen, starts, model) {
  const own = {
    rule: model.rule ?? "model",
    threshold: model.threshold ?? chosen.threshold,
    threshold_add: model.parameters.threshold_add ?? chosen.threshold_add,
    stride: model.parameters.stride ?? chosen.stride,
  };
  const set = chosen.rule === "model" ? { ...chosen, ...own } : chosen;
  const others = model.rules.map((card) => {
    const { rule } = card;
    const parameters = rule === set.rule ? set : matched(card, set, answer.entropies, starts);
    return { rule, note: noteOf(parameters), starts: startsOf(parameters, answer) };
  });
  const first = { rule: "model", note: model.rule ?? "", starts: answer.modelStarts };
  body.replaceChildren(...[first, ...others].map((row) => rowOf(row, answer, row.rule === chosen.rule)));
}

/** Which bytes start a patch, by a rule that this page knows or the server cut by. @param {Rule} rule */
export function startsOf(rule, { bytes, entropies, modelStarts, serverStarts }) {
  if (rule.rule === "model") return modelStarts;
  return knows(rule.rule) ? decide(rule, bytes, entropies) : serverStarts[rule.rule];
}

/** @returns {Rule} */
function matched({ rule, parameters: taken }, chosen, entropies, starts) {
  const { max_patch_length } = chosen;
  if (taken.includes("stride")) return { rule, stride: Math.max(1, Math.round(meanSize(starts))), max_patch_length };
  if (!taken.includes("threshold")) return { rule, max_patch_length };
  const parameters = { ...chosen, rule };
  return { ...parameters, threshold: thresholdFor(parameters, entropies, Math.max(1, patchCount(starts))) };
}

function noteOf({ rule, threshold = 0, threshold_add = 0, stride }) {
  const theta = `θ = ${threshold.toFixed(3)}`;
  if (rule === "entropy") return theta;
  if (rule === "entropy-monotonic") return `rise above ${theta}`;
  if (rule === "entropy-combined") return `${theta}, rise above ${threshold_add.toFixed(2)}`;
  return rule === "static" ? `every ${stride} bytes` : "";
}

function rowOf({ rule, note, starts }, { bytes, units }, isChosen) {
  const end = units.findIndex((unit) => unit.end > MOST_BYTES);
  const shown = end < 0 ? units : units.slice(0, end);
  const text = el("div", { class: "patched small", dir: direction(shown) }, ...draw({ bytes, units: shown, starts }));
  if (end >= 0) text.append(" …");
  return el("tr", isChosen ? { class: "chosen" } : {},
    el("th", { scope: "row" }, rule, isChosen ? " (chosen)" : "", el("small", {}, note)),
    el("td", { class: "number", "data-label": "patches" }, patchCount(starts).toLocaleString("en")),
    el("td", { class: "number", "data-label": "bytes per patch" }, meanSize(starts).toFixed(2)),
    el("td", { class: "wide" }, text));
}
