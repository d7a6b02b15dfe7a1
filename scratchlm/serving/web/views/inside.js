// Inside a model: what happens between a text and the prediction, of one model or of two beside each other.
import { isStopped, listModels, post } from "../api.js";
import { growingText } from "../components/growing-text.js";
import { chosenModel, modelFacts, modelPicker } from "../components/model-picker.js";
import { tabBar } from "../components/tab-bar.js";
import { button, h, nothing, problem, put } from "../dom.js";
import { link } from "../state.js";
import { showAttention } from "./inside-attention.js";
import { showAttribution } from "./inside-attribution.js";
import { showLens } from "./inside-lens.js";
import { showNorms } from "./inside-norms.js";
import { showTokens } from "./inside-tokens.js";

/** @typedef {{id: number, text: string, prob: number}} Candidate */
/** @typedef {{id: number, text: string, prob: number | null, loss: number | null, rank: number | null,
 *    alternatives: Candidate[], nearest: {id: number, text: string, similarity: number}[]}} InspectedToken */
/** @typedef {{embedding: number, position: number, heads: number[][], attention_bias: number[], feed_forward: number[], constant: number}} Parts */
/** @typedef {{id: number, text: string, prob: number, logit: number, saliency: number[], parts: Parts}} Choice */
/** @typedef {{previous: number, first: number, itself: number, induction: number | null}} HeadSummary */
/** @typedef {{kind: string, tokens: InspectedToken[], choices: Choice[], mean_logit: number, mean_parts: Parts,
 *    lens: {prob: number, rank: number, top: Candidate[]}[][], heads: HeadSummary[][], attention: number[][][][],
 *    norms: {residual: number[][], attention: number[][], feed_forward: number[][]}}} Inspection */
/** @typedef {{token: number, layer: number, head: number, choice: number, summary: string}} Focus what is looked at */
/** @typedef {{data: Inspection, focus: Focus, look: (change: Partial<Focus>) => void}} Panel */

const TABS = {
  tokens: "Prediction",
  attention: "Attention",
  lens: "Logit lens",
  attribution: "Attribution",
  norms: "Norms",
};
/** @type {Record<string, (place: HTMLElement, panel: Panel) => void>} */
const SHOW = {
  tokens: showTokens,
  attention: showAttention,
  lens: showLens,
  attribution: showAttribution,
  norms: showNorms,
};

/** @param {HTMLElement} place @param {import("../state.js").Address} address */
export async function show(place, address) {
  const models = await listModels();
  if (!models.length)
    return put(
      place,
      nothing("No model", "This server has no model; start it with one:", "scratchlm serve runs/quickstart"),
    );
  const isLink = address.text("prompt") !== "";
  let model = chosenModel(models, address.text("model"));
  let other = models.find((one) => one.id === address.text("other")) ?? null;
  let tab = address.text("tab", "tokens");
  /** @type {{model: import("../api.js").Model, data: Inspection}[]} */
  let seen = [];
  /** @type {AbortController | null} */
  let running = null;
  /** @type {Focus} */
  const focus = {
    token: address.number("token", -1),
    layer: address.number("layer", -1),
    head: address.number("head", 0),
    choice: 0,
    summary: address.text("summary", "previous"),
  };

  const result = h("div", { class: "stack" });
  const prompt = growingText({
    label: "Text",
    value: address.text("prompt", "Once upon a time, there was a little"),
    onsend: () => run(),
    oninput: () => keep(),
  });
  const go = button("Look inside", () => (running ? running.abort() : run()), { class: "primary" });
  const facts = h("p", { class: "hint" });
  const keep = () => {
    facts.textContent = modelFacts(model);
    address.set({
      model: model.id,
      other: other?.id,
      prompt: prompt.box.value,
      tab: tab === "tokens" ? null : tab,
      token: focus.token >= 0 ? focus.token : null,
      layer: focus.layer >= 0 ? focus.layer : null,
      head: focus.head || null,
      summary: focus.summary === "previous" ? null : focus.summary,
    });
  };
  const draw = () => {
    if (!seen.length)
      return put(
        result,
        h(
          "p",
          { class: "lead" },
          "One pass over the text shows how probable each token was, where each attention head attends, what the model would predict after each layer, and which parts contribute to the prediction.",
        ),
      );
    put(
      result,
      h(
        "div",
        { class: seen.length > 1 ? "columns" : "stack" },
        seen.map(({ model: one, data }) => {
          const inner = h("div", { class: "stack" });
          const part = h("section", { "aria-label": one.id }, seen.length > 1 && h("h2", {}, one.id), inner);
          queueMicrotask(() => SHOW[tab](inner, { data, focus, look }));
          return part;
        }),
      ),
    );
  };
  /** @param {Partial<Focus>} change */
  const look = (change) => {
    Object.assign(focus, change);
    keep();
    if (seen.length > 1) draw(); // the other model shows the same place
  };
  const run = async () => {
    if (running || prompt.isEmpty()) return;
    keep();
    const controller = (running = new AbortController());
    go.textContent = "Stop";
    put(result, h("p", { class: "busy" }, "Computing …"));
    try {
      const asked = other ? [model, other] : [model];
      const found = await Promise.all(
        asked.map((one) =>
          post("/api/inspect", { model: one.id, prompt: prompt.box.value }, controller.signal),
        ),
      );
      seen = asked.map((one, i) => ({ model: one, data: found[i] }));
      draw();
    } catch (error) {
      put(result, isStopped(error) ? h("p", { class: "busy" }, "Stopped.") : problem(error));
    }
    running = null;
    go.textContent = "Look inside";
  };

  put(
    place,
    h("h1", {}, "Inside"),
    h(
      "div",
      { class: "stack" },
      h(
        "div",
        { class: "row" },
        h(
          "div",
          { class: "grow" },
          modelPicker(models, {
            value: model.id,
            onchange: (id) => {
              model = chosenModel(models, id);
              keep();
            },
          }),
        ),
        h(
          "div",
          { class: "grow" },
          modelPicker(models, {
            label: "Compare with",
            value: other?.id ?? "",
            none: "no other model",
            onchange: (id) => {
              other = models.find((one) => one.id === id) ?? null;
              keep();
            },
          }),
        ),
      ),
      prompt.field,
      h(
        "div",
        { class: "row" },
        go,
        facts,
        h("a", { href: link("model", { model: model.id }) }, "The model's weights"),
      ),
      tabBar("What to look at", TABS, tab, (name) => {
        tab = name;
        keep();
        draw();
      }),
      result,
    ),
  );
  if (isLink) run();
  return () => running?.abort();
}
