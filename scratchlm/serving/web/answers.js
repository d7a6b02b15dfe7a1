// Answers as they are generated: several of one model at once, token by token.
import { isStopped, stream } from "./api.js";
import { asRequest } from "./sampling.js";

/** @typedef {import("./api.js").Model} Model */
/** @typedef {{role: "system" | "user" | "assistant", content: string}} Message */
/** @typedef {{messages: Message[]} | {text: string}} Prompt a conversation, or a text to continue */
/** @typedef {import("./components/token-text.js").ShownToken} ShownToken */

export class Answer {
  /**
   * @param {Model} model
   * @param {number} copy
   * @param {string} begun the beginning of the answer that the reader wrote
   */
  constructor(model, copy, begun = "") {
    this.model = model;
    this.copy = copy;
    this.text = begun;
    this.begun = begun;
    /** @type {ShownToken[]} with probabilities, where these were asked for */
    this.tokens = begun ? [{ text: begun, prob: null }] : [];
    /** @type {"running" | "done" | "stopped" | "failed"} */
    this.state = "running";
    this.reason = "";
    this.problem = "";
    this.startedAt = performance.now();
    this.firstAt = 0;
    this.endedAt = 0;
    this.nTokens = 0;
  }

  /** Seconds since the first token. */
  get seconds() {
    return ((this.endedAt || performance.now()) - (this.firstAt || this.startedAt)) / 1000;
  }

  /** @param {Answer["state"]} state @param {string} [why] */
  end(state, why = "") {
    if (this.state !== "running") return;
    this.state = state;
    this.endedAt = performance.now();
    if (state === "failed") this.problem = why;
    else this.reason = why;
  }
}

/**
 * Generate the answers of one model; they fill as the tokens come.
 * @param {Answer[]} answers one for each copy
 * @param {Prompt} prompt
 * @param {{settings: import("./sampling.js").Settings, hasProbabilities: boolean, signal: AbortSignal,
 *   changed: (answer: Answer) => void}} options
 */
export async function generate(answers, prompt, { settings, hasProbabilities, signal, changed }) {
  const [{ model }] = answers;
  const isChat = "messages" in prompt;
  const asked = isChat
    ? { messages: prompt.messages, logprobs: hasProbabilities }
    : { prompt: prompt.text, ...(hasProbabilities && { logprobs: 0 }) };
  const body = {
    model: model.id,
    ...asked,
    ...asRequest(settings),
    n: answers.length,
    stream_options: { include_usage: true },
  };
  try {
    for await (const found of stream(isChat ? "/v1/chat/completions" : "/v1/completions", body, signal)) {
      for (const choice of found.choices) take(answers[choice.index], choice, changed);
      if (found.usage && answers.length === 1) answers[0].nTokens = found.usage.completion_tokens;
    }
    for (const one of answers) one.end("done");
  } catch (error) {
    for (const one of answers) {
      if (isStopped(error)) one.end("stopped");
      else one.end("failed", error instanceof Error ? error.message : String(error));
    }
  }
  answers.forEach(changed);
}

/**
 * @param {Answer} answer
 * @param {any} choice a piece of it, in OpenAI's form
 * @param {(answer: Answer) => void} changed
 */
function take(answer, choice, changed) {
  answer.firstAt ||= performance.now();
  const text = choice.delta ? (choice.delta.content ?? "") : choice.text;
  answer.text += text;
  const scores = choice.delta
    ? (choice.logprobs?.content ?? []).map((/** @type {any} */ one) => [one.token, one.logprob])
    : (choice.logprobs?.tokens ?? []).map((/** @type {string} */ token, /** @type {number} */ i) => [
        token,
        choice.logprobs.token_logprobs[i],
      ]);
  for (const [token, logprob] of scores) answer.tokens.push({ text: token, prob: Math.exp(logprob) });
  answer.nTokens += scores.length || (text ? 1 : 0);
  if (choice.finish_reason) answer.end("done", choice.finish_reason);
  changed(answer);
}
