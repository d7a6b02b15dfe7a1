// Logit lens: what the model would predict if it stopped after an earlier layer.
import { h, put } from "../dom.js";
import { percent, visible } from "../format.js";

/** @param {HTMLElement} place @param {import("./inside.js").Panel} panel */
export function showLens(place, { data }) {
  const isClassifier = data.kind === "classification";
  const readout = h("output", { class: "hint" }, "Point at a cell to see its candidates.");
  const followers = isClassifier
    ? [data.choices[0].text]
    : [...data.tokens.slice(1).map((token) => token.text), data.choices[0].text];
  const heads = isClassifier ? ["class"] : data.tokens.map((token) => visible(token.text));
  const tell = (/** @type {Event} */ event) => {
    const cell = event.target instanceof Element ? event.target.closest("td") : null;
    if (!cell) return;
    const [l, i] = (cell.dataset.at ?? "").split(",").map(Number);
    const found = data.lens[l][i];
    readout.textContent =
      `${name(l)}, at ${heads[i]}: ${found.top.map((one) => `${visible(one.text)} ${percent(one.prob)}`).join(", ")}. ` +
      `${visible(followers[i])} has ${percent(found.prob)}, rank ${found.rank + 1}.`;
  };
  const name = (/** @type {number} */ l) => (l === 0 ? "embedding" : `after layer ${l - 1}`);
  put(
    place,
    h(
      "div",
      { class: "card" },
      h("h2", {}, "Logit lens"),
      h(
        "p",
        { class: "hint" },
        "Each row is a layer, from the bottom up; the top row is the model's own prediction. A cell shows the most likely next token there, coloured by its probability; a line marks the token that actually follows.",
      ),
      readout,
      h(
        "div",
        { class: "scroll", tabindex: 0, role: "region", "aria-label": "Logit lens" },
        h(
          "table",
          { class: "lens", onpointerover: tell, onclick: tell },
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              h("td", {}),
              heads.map((one) => h("th", { scope: "col", title: one }, one)),
            ),
          ),
          h(
            "tbody",
            {},
            data.lens
              .map((row, l) =>
                h(
                  "tr",
                  {},
                  h("th", { scope: "row" }, name(l)),
                  row.map((cell, i) =>
                    h(
                      "td",
                      {
                        class: cell.rank === 0 ? "hit" : "",
                        "data-at": `${l},${i}`,
                        vars: { "--p": cell.top[0].prob },
                      },
                      visible(cell.top[0].text),
                    ),
                  ),
                ),
              )
              .reverse(),
          ),
        ),
      ),
    ),
  );
}
