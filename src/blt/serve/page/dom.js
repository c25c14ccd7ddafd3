/**
 * Small helpers around the document. All text goes in as text nodes.
 * @module
 */

/** The element with an id that index.html has. @param {string} id @returns {any} */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * An element.
 * @param {string} tag
 * @param {Object<string, string|number>} [attributes]
 * @param {...(Node|string)} children
 */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. @param {string} tag @param {Object<string, string|number>} [attributes]
 * @param {...(Node|string)} children */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/** @template {Element} E @param {E} element @returns {E} */
function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/**
 * A button for each sample, in the sample's own language.
 * @param {HTMLElement} group
 * @param {import("./samples.js").Sample[]} samples
 * @param {(sample: import("./samples.js").Sample) => void} choose
 */
export function offer(group, samples, choose) {
  for (const sample of samples) {
    const { name, title, lang, dir = "ltr" } = sample;
    const button = el("button", { type: "button", title, lang, dir }, name);
    button.addEventListener("click", () => choose(sample));
    group.append(button);
  }
}

/** A function that runs once, `milliseconds` after its last call. @param {() => void} action
 * @param {number} milliseconds */
export function debounced(action, milliseconds) {
  /** @type {number|undefined} */
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
}

/** A function that runs at most once per picture. @param {() => void} action */
export function oncePerFrame(action) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      action();
    });
  };
}

/** A line that tells how something goes; errors are read out at once. */
export class Notice {
  /** @param {HTMLElement} element with role="status" */
  constructor(element) {
    this.element = element;
  }

  /** @param {string} message */
  say(message) {
    this.#show(message, "");
  }

  /** @param {Error} error @param {(() => void)} [retry] */
  fail(error, retry) {
    this.#show(error.message, "error");
    if (!retry) return;
    const button = el("button", { type: "button" }, "Try again");
    button.addEventListener("click", retry);
    this.element.append(" ", button);
  }

  clear() {
    this.#show("", "");
  }

  #show(message, kind) {
    this.element.className = `notice ${kind}`;
    this.element.replaceChildren(message);
  }
}

/** Let a field of a number say, and ask for, no more than the server gives. */
export function limit(field, most) {
  field.max = String(most);
  field.value = String(Math.min(Number(field.value), most));
}

/** @param {Error} error @returns {boolean} did we end it ourselves? */
export function isAbort(error) {
  return error.name === "AbortError";
}
