// Requests to the server that this page came from, and to no other.

/** @typedef {{id: string, kind: string, can_chat: boolean, supports_conversations: boolean, context_length: number, n_parameters: number,
 *    n_bits: number, vocab_size: number, classes: string[]}} Model */

const TOKEN = "scratchlm-token";

/** An error that the server reported; its message says what to do. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * @param {string} path
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function get(path, signal) {
  return (await ask(path, { signal })).json();
}

/**
 * @param {string} path
 * @param {unknown} body
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function post(path, body, signal) {
  return (await ask(path, asJson(body, signal))).json();
}

/**
 * The objects of a streamed answer, as they come.
 * @param {string} path
 * @param {Record<string, unknown>} body
 * @param {AbortSignal} [signal] ends the answer; the server stops generating
 * @returns {AsyncGenerator<any>}
 */
export async function* stream(path, body, signal) {
  const response = await ask(path, asJson({ ...body, stream: true }, signal));
  const lines = /** @type {ReadableStream<BufferSource>} */ (response.body).pipeThrough(
    new TextDecoderStream(),
  );
  const reader = lines.getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (held + value).split("\n\n");
    held = /** @type {string} */ (events.pop());
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const found = JSON.parse(data);
      if (found.error) throw new ApiError(500, messageOf(found, "the answer failed."));
      yield found;
    }
  }
}

const FRESH_MS = 2000;

/** @type {Promise<Model[]> | null} */
let known = null;

/** The models that the server offers; asked for again after a while, since training adds some. @returns {Promise<Model[]>} */
export function listModels() {
  if (known) return known;
  known = get("/v1/models").then((found) => found.data);
  const forget = () => {
    known = null;
  };
  known.then(() => setTimeout(forget, FRESH_MS), forget);
  return known;
}

/** Whether a request was stopped by the reader. @param {unknown} error */
export const isStopped = (error) => error instanceof DOMException && error.name === "AbortError";

/**
 * @param {unknown} body
 * @param {AbortSignal} [signal]
 * @returns {RequestInit}
 */
function asJson(body, signal) {
  return {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  };
}

/**
 * @param {string} path
 * @param {RequestInit} options
 * @returns {Promise<Response>}
 */
async function ask(path, options) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers, ...(token && { authorization: `Bearer ${token}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (isStopped(error)) throw error;
    throw new ApiError(0, "The server does not answer; start it again with `scratchlm serve`.");
  }
  if (response.status === 401) {
    sessionStorage.setItem(TOKEN, await askForToken(token !== null));
    return ask(path, options);
  }
  if (!response.ok) {
    const found = await response.json().catch(() => null);
    throw new ApiError(response.status, messageOf(found, `The server answered ${response.status}.`));
  }
  return response;
}

/**
 * @param {any} body
 * @param {string} standard
 * @returns {string}
 */
function messageOf(body, standard) {
  const error = body?.error;
  return (typeof error === "string" ? error : error?.message) ?? body?.detail ?? standard;
}

/** @type {Promise<string> | null} */
let asking = null;

/** Ask the reader for the server's token; it is kept until the tab is closed. @param {boolean} wasWrong */
function askForToken(wasWrong) {
  asking ??= import("./components/token-dialog.js")
    .then((dialog) => dialog.askForToken(wasWrong))
    .finally(() => {
      asking = null;
    });
  return asking;
}
