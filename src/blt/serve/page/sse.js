/**
 * Server-sent events, as far as completions use them.
 * @module
 */

/** Cuts a stream of text into the data of its events. */
export class EventReader {
  #rest = "";

  /**
   * @param {string} text what has come, cut anywhere
   * @returns {string[]} data of the events that are now whole
   */
  push(text) {
    const events = (this.#rest + text).split(/\r?\n\r?\n/);
    this.#rest = /** @type {string} */ (events.pop());
    return events.map(dataOf).filter((data) => data !== null);
  }
}

/** @param {string} event @returns {string|null} null: a comment that keeps the line open */
function dataOf(event) {
  const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.length ? lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n") : null;
}
