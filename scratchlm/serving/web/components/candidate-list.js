// The candidates for one token: their probabilities, and what each step of the chain removed.
import { button, h, put } from "../dom.js";
import { count, decimal, percent, visible } from "../format.js";

/** @typedef {{id: number, text: string, prob: number, chosen_with: number}} Candidate `prob` is the model's own */
/** @typedef {{step: string, n: number, prob: number, ids: number[]}} Removal */
/** @typedef {{id: number, text: string, entropy: number, entropy_after: number, candidates: Candidate[],
 *    removed: Removal[]}} Step */

const NAMES = /** @type {Record<string, string>} */ ({
  forbidden: "ids without a token",
  top_k: "top-k",
  top_p: "top-p",
  min_p: "min-p",
  typical_p: "typical-p",
  no_repeat_ngram: "no repeated n-gram",
  top_n_sigma: "top-n-sigma",
  mirostat_tau: "Mirostat",
  min_new_tokens: "minimum length",
  json_schema: "JSON schema",
  logit_bias: "logit bias",
});

/** The name of a step of the chain. @param {string} step */
const nameOf = (step) => NAMES[step] ?? step.replace(/_/g, " ");

/** The model's own probability of the chosen token. @param {Step} step */
export const probabilityOf = (step) => step.candidates.find((one) => one.id === step.id)?.prob ?? 0;

/** Sends `branch` with the chosen candidate as `detail`. */
export class CandidateList extends HTMLElement {
  /**
   * @param {Step | null} step
   * @param {number} index
   * @param {number} total
   */
  show(step, index, total) {
    if (!step) return put(this, h("p", { class: "hint" }, "Point at a token, or move with the arrow keys."));
    const taken = step.candidates.find((one) => one.id === step.id);
    const rank = step.candidates.filter((one) => one.prob > (taken?.prob ?? 0)).length + 1;
    const removedBy = new Map(step.removed.flatMap((one) => one.ids.map((id) => [id, nameOf(one.step)])));
    const ordered = [...step.candidates].sort((a, b) => b.prob - a.prob);
    put(
      this,
      h("p", { class: "hint" }, `Token ${index + 1} of ${total}, id ${step.id}`),
      h("h2", {}, visible(step.text)),
      h(
        "dl",
        { class: "figures" },
        figure("probability", taken ? percent(taken.prob) : "–"),
        figure("rank", taken ? (rank > 20 ? "> 20" : String(rank)) : "–"),
        figure("entropy (nats)", decimal(step.entropy)),
        figure("choices (e^entropy)", decimal(Math.exp(step.entropy), 1)),
      ),
      h(
        "div",
        { class: "scroll" },
        h(
          "table",
          { class: "candidates" },
          h("caption", { class: "hidden" }, "Candidates; choose one to continue from there"),
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              h("th", { scope: "col" }, "continue with"),
              h("td", {}),
              h("th", { scope: "col", class: "number" }, "model"),
              h("th", { scope: "col", class: "number" }, "chain"),
            ),
          ),
          h(
            "tbody",
            {},
            ordered.map((one) => this.#row(one, one.id === step.id, removedBy.get(one.id))),
          ),
        ),
      ),
      h(
        "ul",
        { class: "steps" },
        step.removed.length
          ? step.removed.map((one) =>
              h(
                "li",
                {},
                h("b", {}, nameOf(one.step)),
                ` removed ${count(one.n)} tokens that had ${percent(one.prob)}`,
              ),
            )
          : h("li", {}, "No token was removed."),
        h("li", {}, `Entropy of the choice: ${decimal(step.entropy_after)} nats`),
      ),
    );
  }

  /**
   * @param {Candidate} one
   * @param {boolean} isTaken
   * @param {string | undefined} removedBy
   */
  #row(one, isTaken, removedBy) {
    const why = removedBy ? `removed by ${removedBy}` : "";
    return h(
      "tr",
      { class: isTaken ? "taken" : removedBy ? "out" : "" },
      h(
        "td",
        {},
        button(visible(one.text), () => this.dispatchEvent(new CustomEvent("branch", { detail: one })), {
          title: isTaken ? "chosen" : why || "continue from here",
          "aria-label": `${visible(one.text)}${isTaken ? ", chosen" : ""}`,
        }),
      ),
      h(
        "td",
        {},
        h(
          "div",
          { class: "bars" },
          h("div", { class: "bar-line before", vars: { "--share": one.prob } }),
          h("div", { class: "bar-line", vars: { "--share": one.chosen_with } }),
        ),
      ),
      h("td", { class: "number" }, percent(one.prob)),
      h("td", { class: "number", title: why }, removedBy ?? percent(one.chosen_with)),
    );
  }
}

/** @param {string} name @param {string} value */
export const figure = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

customElements.define("candidate-list", CandidateList);
