/**
 * The server's API: requests, keys, errors that people can read.
 * @module
 */

import { EventReader } from "./sse.js";

const KEY = "blt-key"; // of the browser tab only
const MOST_TRIES = 5;

/** What went wrong, in a sentence; `status` 0: no answer at all. */
export class ApiError extends Error {
  /** @param {string} message @param {number} status @param {number} [retryAfter] seconds */
  constructor(message, status, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** @type {(refused: boolean) => Promise<string>} */
let askForKey = async () => {
  throw new ApiError("The server wants an API key.", 401);
};

/** @param {(refused: boolean) => Promise<string>} ask called once, however many requests need a key;
 * refused: the last key was wrong */
export function setKeyPrompt(ask) {
  /** @type {Promise<string>|null} */
  let asking = null;
  askForKey = (refused) => (asking ??= ask(refused).finally(() => (asking = null)));
}

/** @typedef {{signal?: AbortSignal, onWait?: (message: string) => void}} Options */

/** @param {Options} [options] @returns {Promise<{id: string, kind: string, rule?: string, threshold?: number,
 *   parameters: Record<string, number>, chat: boolean, max_bytes: number, rules: import("./patching.js").RuleCard[]}>} */
export async function model(options) {
  const { data } = await (await send("v1/models", undefined, options)).json();
  if (!data?.length) throw new ApiError("The server has no model.", 200);
  return data[0];
}

/** @param {string} bytes base64 @param {object[]} rules to cut by @param {Options} [options] */
export async function patches(bytes, rules, options) {
  return (await send("v1/patches", { bytes, rules }, options)).json();
}

/** @param {string} bytes base64 @param {Options} [options] */
export async function score(bytes, options) {
  return (await send("v1/score", { bytes }, options)).json();
}

/**
 * The chunks of a completion as they come.
 * @param {object} body
 * @param {Options} [options]
 */
export function complete(body, options) {
  return chunks("v1/completions", body, options);
}

/**
 * The chunks of an answer to messages as they come.
 * @param {object} body
 * @param {Options} [options]
 */
export function chat(body, options) {
  return chunks("v1/chat/completions", body, options);
}

/** @param {string} path @param {object} body @param {Options} [options] */
async function* chunks(path, body, options) {
  const response = await send(path, { ...body, stream: true }, options);
  for await (const data of events(response)) {
    options?.signal?.throwIfAborted(); // all of it may be here by now
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message, 200);
    yield chunk;
  }
  throw new ApiError("The answer broke off: the server has gone away.", 0);
}

/** @param {Response} response */
async function* events(response) {
  const reader = /** @type {ReadableStream} */ (response.body).getReader();
  const decoder = new TextDecoder();
  const cutter = new EventReader();
  for (;;) {
    const { done, value } = await reader.read().catch(gone);
    if (done) return;
    yield* cutter.push(decoder.decode(value, { stream: true }));
  }
}

/**
 * Send until there is an answer: asks for a key after 401, waits as told after 429.
 * @param {string} path
 * @param {object|undefined} body undefined: GET
 * @param {Options} [options]
 * @returns {Promise<Response>}
 */
async function send(path, body, { signal, onWait } = {}) {
  for (let tries = 1; ; tries++) {
    try {
      return await sendOnce(path, body, signal);
    } catch (error) {
      if (!(error instanceof ApiError) || tries === MOST_TRIES) throw error;
      if (error.status === 401) {
        sessionStorage.setItem(KEY, await askForKey(sessionStorage.getItem(KEY) !== null));
      } else if (error.status === 429) {
        const seconds = error.retryAfter ?? 1;
        onWait?.(`The server is busy. Trying again in ${seconds} s.`);
        await pause(seconds * 1000, signal);
      } else {
        throw error;
      }
    }
  }
}

/** @param {string} path @param {object|undefined} body @param {AbortSignal} [signal] */
async function sendOnce(path, body, signal) {
  const key = sessionStorage.getItem(KEY);
  const headers = {
    ...(key ? { Authorization: `Bearer ${key}` } : {}),
    ...(body ? { "Content-Type": "application/json" } : {}),
  };
  const method = body ? "POST" : "GET";
  const response = await fetch(path, { method, headers, body: JSON.stringify(body), signal }).catch(gone);
  if (response.ok) return response;
  throw await errorOf(response);
}

/** @param {Response} response */
async function errorOf(response) {
  const answer = await response.json().catch(() => null);
  const message = answer?.error?.message ?? `The server answers ${response.status}.`;
  const wait = Number(response.headers.get("Retry-After"));
  return new ApiError(message, response.status, wait > 0 ? Math.min(wait, 60) : undefined);
}

/** @param {Error} error @returns {never} */
function gone(error) {
  if (error.name === "AbortError") throw error;
  throw new ApiError("The server does not answer. Is it still running?", 0);
}

/** @param {number} milliseconds @param {AbortSignal} [signal] */
function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
