/**
 * Talk to the model, where it has a chat template.
 * @module
 */

import * as api from "./api.js";
import { byId, el, isAbort, limit, Notice, oncePerFrame } from "./dom.js";

const NAMES = { user: "You", assistant: "Model" };

/** @typedef {{role: "user"|"assistant", content: string}} Message */

export class ChatPanel {
  /** @type {Message[]} */
  #messages = [];
  /** @type {AbortController|null} */
  #abort = null;

  /** @param {{id: string, chat?: boolean, max_bytes: number}} model */
  constructor(model) {
    this.model = model;
    byId("chat").hidden = byId("chat-link").hidden = !model.chat;
    if (!model.chat) return;
    this.notice = new Notice(byId("chat-notice"));
    this.show = oncePerFrame(() => this.#drawLast());
    limit(byId("chat-bytes"), model.max_bytes);
    byId("chat-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    byId("chat-text").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      byId("chat-form").requestSubmit();
    });
    byId("chat-stop").addEventListener("click", () => this.#abort?.abort());
    byId("chat-again").addEventListener("click", () => this.again());
    byId("chat-undo").addEventListener("click", () => this.undo());
    byId("chat-new").addEventListener("click", () => this.#become([]));
    this.#become([]);
  }

  ask() {
    const content = byId("chat-text").value;
    if (this.#abort || !content.trim()) return;
    byId("chat-text").value = "";
    this.#become([...this.#messages, { role: "user", content }]);
    this.answer();
  }

  /** Another answer to the last question. */
  again() {
    if (this.#messages.at(-1)?.role === "assistant") this.#become(this.#messages.slice(0, -1));
    this.answer();
  }

  /** Take the last question back into the box, to be changed. */
  undo() {
    const at = this.#messages.findLastIndex((message) => message.role === "user");
    byId("chat-text").value = this.#messages[at].content;
    this.#become(this.#messages.slice(0, at));
    byId("chat-text").focus();
  }

  async answer() {
    const abort = (this.#abort = new AbortController());
    const body = this.#request();
    const answer = { role: "assistant", content: "" };
    this.notice.say("Writing …");
    this.#setButtons();
    try {
      const options = { signal: abort.signal, onWait: (message) => this.notice.say(message) };
      for await (const chunk of api.chat(body, options)) {
        const text = chunk.choices?.[0]?.delta?.content;
        if (!text) continue;
        if (!answer.content) this.#become([...this.#messages, answer]);
        answer.content += text;
        this.show();
      }
      if (!answer.content) this.#become([...this.#messages, answer]);
      this.notice.say("Finished.");
    } catch (error) {
      if (isAbort(error)) this.notice.say("Stopped.");
      else this.notice.fail(error, () => this.again());
    } finally {
      this.#abort = null;
      this.#drawLast();
      this.#setButtons();
    }
  }

  #request() {
    const system = byId("chat-system").value;
    return {
      model: this.model.id,
      messages: [...(system ? [{ role: "system", content: system }] : []), ...this.#messages],
      max_tokens: Number(byId("chat-bytes").value),
      temperature: Number(byId("chat-temperature").value),
    };
  }

  /** @param {Message[]} messages */
  #become(messages) {
    this.#messages = messages;
    const turns = messages.map(({ role, content }) =>
      el("div", { class: `turn ${role}` }, el("b", {}, NAMES[role]), el("p", { dir: "auto" }, content)));
    byId("chat-log").replaceChildren(...turns);
    this.notice.clear();
    this.#setButtons();
  }

  #drawLast() {
    const log = byId("chat-log");
    const last = log.lastElementChild?.querySelector("p");
    if (last) last.textContent = this.#messages.at(-1)?.content ?? "";
    log.scrollTop = log.scrollHeight;
  }

  #setButtons() {
    const busy = this.#abort !== null;
    byId("chat-log").setAttribute("aria-busy", String(busy));
    byId("chat-send").disabled = busy;
    byId("chat-stop").disabled = !busy;
    for (const id of ["chat-again", "chat-undo", "chat-new"]) byId(id).disabled = busy || !this.#messages.length;
  }
}
