// The prediction, the probability of every token before it, and the evidence for it in the text.
import { figure } from "../components/candidate-list.js";
import { TokenText, legend } from "../components/token-text.js";
import { button, h, put } from "../dom.js";
import { decimal, percent, visible } from "../format.js";

/** @param {HTMLElement} place @param {import("./inside.js").Panel} panel */
export function showTokens(place, { data, focus, look }) {
  const isClassifier = data.kind === "classification";
  const evidence = h("div", {});
  const choices = h("div", { class: "stack" });
  const drawChoices = () => {
    put(
      choices,
      h(
        "table",
        { class: "candidates" },
        h("caption", { class: "hidden" }, "Predictions; choose one to see its evidence"),
        h(
          "tbody",
          {},
          data.choices.map((one, i) =>
            h(
              "tr",
              { class: i === focus.choice ? "taken" : "" },
              h(
                "td",
                {},
                button(
                  visible(one.text),
                  () => {
                    look({ choice: i });
                    drawChoices();
                  },
                  { "aria-pressed": null },
                ),
              ),
              h("td", {}, h("div", { class: "bar-line", vars: { "--share": one.prob } })),
              h("td", { class: "number" }, percent(one.prob)),
            ),
          ),
        ),
      ),
    );
    const chosen = data.choices[Math.min(focus.choice, data.choices.length - 1)];
    put(
      evidence,
      h(
        "p",
        { class: "hint" },
        `Evidence for ${visible(chosen.text)}: gradient times input of each token; green tokens raise its score, orange tokens lower it.`,
      ),
      evidenceText(
        data.tokens.map((token) => token.text),
        chosen.saliency,
      ),
    );
  };
  const detail = h("div", {});
  const text = new TokenText();
  text.setAttribute("aria-label", "Tokens of the text");
  text.tokens = data.tokens.map((token) => ({ text: token.text, prob: token.prob }));
  const show = (/** @type {number} */ i) => {
    text.choose(i);
    put(detail, ...about(data.tokens[i], i));
  };
  text.addEventListener("look", (event) => {
    const i = /** @type {CustomEvent} */ (event).detail;
    if (i === text.chosen) return;
    show(i);
    focus.token = i;
  });
  text.addEventListener("pick", (event) => look({ token: /** @type {CustomEvent} */ (event).detail }));
  drawChoices();
  put(
    place,
    h("div", { class: "card" }, h("h2", {}, isClassifier ? "Class" : "Next token"), choices, evidence),
    h("div", { class: "card" }, h("h2", {}, "The text"), text, !isClassifier && legend(), detail),
  );
  show(focus.token >= 0 && focus.token < data.tokens.length ? focus.token : data.tokens.length - 1);
}

/**
 * Tokens coloured by their saliency.
 * @param {string[]} tokens
 * @param {number[]} saliency
 */
export function evidenceText(tokens, saliency) {
  const most = Math.max(...saliency.map(Math.abs), 1e-9);
  return h(
    "p",
    { class: "model evidence" },
    tokens.map((text, i) =>
      h(
        "span",
        {
          class: "tok",
          title: `${visible(text)} ${saliency[i] >= 0 ? "+" : "−"}${Math.abs(saliency[i]).toPrecision(2)}`,
          vars: {
            "--p": Math.abs(saliency[i]) / most,
            "--hue": saliency[i] >= 0 ? "var(--sure)" : "var(--unsure)",
          },
        },
        text,
      ),
    ),
  );
}

/** @param {import("./inside.js").InspectedToken} token @param {number} i @returns {HTMLElement[]} */
function about(token, i) {
  const list = (/** @type {string} */ title, /** @type {[string, number][]} */ rows, format = percent) =>
    h(
      "div",
      {},
      h("h3", {}, title),
      h(
        "table",
        { class: "candidates" },
        h(
          "tbody",
          {},
          rows.map(([text, share]) =>
            h(
              "tr",
              {},
              h("td", {}, h("code", {}, visible(text))),
              h("td", {}, h("div", { class: "bar-line", vars: { "--share": Math.max(share, 0) } })),
              h("td", { class: "number" }, format(share)),
            ),
          ),
        ),
      ),
    );
  const figures =
    token.prob === null
      ? []
      : [
          figure("probability", percent(token.prob)),
          figure("rank", String((token.rank ?? 0) + 1)),
          figure("loss in nats", decimal(token.loss)),
        ];
  return [
    h("h3", { class: "detail-title" }, `${visible(token.text)}`),
    h("p", { class: "hint" }, `token ${i + 1}, id ${token.id}`),
    h("dl", { class: "figures" }, figures),
    h(
      "div",
      { class: "pair" },
      token.alternatives.length
        ? list(
            "Predicted at this position",
            token.alternatives.map((one) => [one.text, one.prob]),
          )
        : h("p", { class: "hint" }, "Nothing was predicted at this position."),
      list(
        "Most similar embeddings",
        token.nearest.map((one) => [one.text, one.similarity]),
        decimal,
      ),
    ),
  ];
}
