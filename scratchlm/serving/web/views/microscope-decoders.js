// Several decoders on one prompt, beside each other.
import { isStopped, stream } from "../api.js";
import { probabilityOf } from "../components/candidate-list.js";
import { TokenText, legend } from "../components/token-text.js";
import { h, problem, put } from "../dom.js";
import { decimal } from "../format.js";

/** @type {Record<string, {hint: string, values: Record<string, number>}>} */
const DECODERS = {
  Greedy: { hint: "always the most likely token", values: { temperature: 0 } },
  "Temperature 0.7": { hint: "a sharper distribution", values: { temperature: 0.7 } },
  "Temperature 1.3": { hint: "a flatter distribution", values: { temperature: 1.3 } },
  "Top-k 40": { hint: "among the 40 most likely", values: { temperature: 1, top_k: 40 } },
  "Top-p 0.9": { hint: "among 90% of the probability", values: { temperature: 1, top_p: 0.9 } },
  "Min-p 0.1": { hint: "at least a tenth as likely as the best", values: { temperature: 1, min_p: 0.1 } },
  "Mirostat 3 bits": { hint: "a constant surprise", values: { temperature: 1, mirostat_tau: 3 } },
  "Repetition penalty 1.3": {
    hint: "greedy, with repeated tokens made less likely",
    values: { temperature: 0, repetition_penalty: 1.3 },
  },
};

/** @param {import("./microscope.js").Microscope} view @param {boolean} isNew */
export function showDecoders(view, isNew) {
  if (!isNew) {
    put(
      view.result,
      h(
        "p",
        { class: "lead" },
        "Generate continues the prompt with eight decoding methods, each with the length and seed of the settings.",
      ),
    );
    return;
  }
  const { max_tokens, seed } = view.settings;
  const controller = new AbortController();
  view.running = controller;
  view.go.textContent = "Stop";
  const jobs = Object.entries(DECODERS).map(([name, one]) => {
    const text = new TokenText();
    text.isWalkable = false;
    const foot = h("p", { class: "facts-line busy" }, "…");
    const run = async () => {
      /** @type {number[]} */
      const probs = [];
      const body = { ...view.request({ max_tokens, seed, ...one.values }), n_candidates: 1 };
      try {
        for await (const { steps = [] } of stream("/api/trace", body, controller.signal)) {
          for (const step of steps) {
            probs.push(probabilityOf(step));
            text.push({ text: step.text, prob: probabilityOf(step) });
          }
        }
        foot.textContent = `${probs.length} tokens · mean surprise ${decimal(surprise(probs))} nats`;
      } catch (error) {
        if (isStopped(error)) foot.textContent = "Stopped.";
        else foot.replaceWith(problem(error));
      }
      foot.classList.remove("busy");
    };
    return {
      card: h(
        "section",
        { class: "card" },
        h("h2", {}, name),
        h("p", { class: "hint" }, one.hint),
        text,
        foot,
      ),
      run,
    };
  });
  put(
    view.result,
    h(
      "div",
      { class: "columns" },
      jobs.map((job) => job.card),
    ),
    legend(),
  );
  Promise.all(jobs.map((job) => job.run())).then(() => {
    view.running = null;
    view.go.textContent = "Generate";
  });
}

/** Units: nats per token. @param {number[]} probs */
const surprise = (probs) =>
  probs.reduce((sum, prob) => sum - Math.log(Math.max(prob, 1e-12)), 0) / Math.max(probs.length, 1);
