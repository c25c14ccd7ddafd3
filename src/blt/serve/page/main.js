/**
 * Starts the page once the server has said which model it has.
 * @module
 */

import { ApiError, model, setKeyPrompt } from "./api.js";
import { ChatPanel } from "./chat-panel.js";
import { byId, Notice } from "./dom.js";
import { LanguagesPanel } from "./languages-panel.js";
import { markResults, PatchesPanel } from "./patches-panel.js";
import { WritePanel } from "./write-panel.js";

/** Ask for an API key in a dialog. @param {boolean} refused the last one @returns {Promise<string>} */
function askForKey(refused) {
  const dialog = byId("key-dialog");
  byId("key-wrong").hidden = !refused;
  dialog.showModal();
  return new Promise((resolve, reject) => {
    dialog.addEventListener("close", () => {
      const key = byId("key").value.trim();
      byId("key").value = "";
      if (dialog.returnValue === "use" && key) resolve(key);
      else reject(new ApiError("Without an API key the server does not answer.", 401));
    }, { once: true });
  });
}

async function start() {
  const notice = new Notice(byId("page-notice"));
  markResults("waiting");
  notice.say("Asking the server for its model …");
  try {
    const found = await model();
    notice.clear();
    byId("model-name").textContent = found.id;
    byId("model-rule").textContent = ruleOf(found);
    new PatchesPanel(found);
    new WritePanel(found);
    new ChatPanel(found);
    new LanguagesPanel();
  } catch (error) {
    notice.fail(error, start);
    markResults("stale");
  }
}

/** @param {{kind: string, rule?: string, threshold?: number}} model */
function ruleOf({ kind, rule, threshold }) {
  if (kind !== "blt") return "reads bytes without patches";
  const theta = threshold === undefined || threshold === null ? "" : `, θ = ${threshold.toFixed(3)} nats`;
  return `patches by ${rule ?? "a rule of its own"}${theta}`;
}

setKeyPrompt(askForKey);
start();
