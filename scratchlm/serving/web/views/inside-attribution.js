// Direct logit attribution: what each part of the model adds to the score of a prediction.
import { HeatMap } from "../components/heat-map.js";
import { button, h, put } from "../dom.js";
import { decimal, visible } from "../format.js";

const MANY = 16; // parts that are shown at first

/** @param {HTMLElement} place @param {import("./inside.js").Panel} panel */
export function showAttribution(place, { data, focus, look }) {
  const body = h("div", { class: "stack" });
  const choices = h("div", { class: "segmented", role: "group", "aria-label": "Prediction" });
  let hasAll = data.heads.length <= MANY / 2;
  const all = h(
    "label",
    { class: "check" },
    h("input", {
      type: "checkbox",
      checked: hasAll,
      onchange: (/** @type {any} */ event) => {
        hasAll = event.target.checked;
        draw();
      },
    }),
    "Show all parts",
  );
  const draw = () => {
    const index = Math.min(focus.choice, data.choices.length - 1);
    const chosen = data.choices[index];
    const mean = data.mean_parts;
    put(
      choices,
      data.choices.map((one, i) =>
        button(
          visible(one.text),
          () => {
            look({ choice: i });
            draw();
          },
          { "aria-pressed": String(i === index) },
        ),
      ),
    );
    const heads = chosen.parts.heads.map((row, l) => row.map((value, i) => value - mean.heads[l][i]));
    const most = Math.max(...heads.flat().map(Math.abs), 1e-9);
    const map = new HeatMap();
    const rows = hasAll ? partsOf(chosen.parts, mean, heads) : largest(partsOf(chosen.parts, mean, heads));
    const longest = Math.max(...rows.map(([, value]) => Math.abs(value)), 1e-9);
    put(
      body,
      h(
        "p",
        { class: "hint" },
        `The logit of ${visible(chosen.text)} is ${decimal(chosen.logit - data.mean_logit)} above the mean logit. That is exactly the sum of these parts.`,
      ),
      h(
        "div",
        { class: "pair" },
        h(
          "div",
          {},
          h("h3", {}, "Parts"),
          h(
            "div",
            { class: "parts" },
            rows.map(([name, value]) =>
              h(
                "div",
                { class: "part" },
                h("span", {}, name),
                h("div", { class: `signed ${value < 0 ? "less" : ""}`, vars: { "--v": value / longest } }),
                h("span", { class: "number" }, decimal(value)),
              ),
            ),
          ),
        ),
        h("div", {}, h("h3", {}, "Heads"), map),
      ),
    );
    map.show({
      rows: heads.length,
      columns: heads[0].length,
      cell: heads.length > 16 ? 15 : 24,
      isSigned: true,
      label: "Contribution of each head",
      value: (l, i) => heads[l][i] / most,
      name: (l, i) => `layer ${l}, head ${i}: ${decimal(heads[l][i], 3)}`,
      rowNames: heads.map((_, l) => String(l)),
      columnNames: heads[0].map((_, i) => String(i)),
    });
  };
  put(
    place,
    h(
      "div",
      { class: "card" },
      h("h2", {}, "Direct logit attribution"),
      choices,
      data.heads.length > MANY / 2 && all,
      body,
    ),
  );
  draw();
}

/** The largest parts in their order, and the sum of all others. @param {[string, number][]} rows @returns {[string, number][]} */
function largest(rows) {
  const least = rows.map(([, value]) => Math.abs(value)).sort((a, b) => b - a)[MANY - 1] ?? 0;
  const others = rows
    .filter(([, value]) => Math.abs(value) < least)
    .reduce((sum, [, value]) => sum + value, 0);
  return [...rows.filter(([, value]) => Math.abs(value) >= least), ["all others", others]];
}

/**
 * Name and share of every part, less the mean over all tokens.
 * @param {import("./inside.js").Parts} parts
 * @param {import("./inside.js").Parts} mean
 * @param {number[][]} heads
 * @returns {[string, number][]}
 */
function partsOf(parts, mean, heads) {
  const sum = (/** @type {number[]} */ row) => row.reduce((total, one) => total + one, 0);
  const layers = /** @type {[string, number][]} */ (
    heads.flatMap((row, l) => [
      [`attention ${l}`, sum(row) + parts.attention_bias[l] - mean.attention_bias[l]],
      [`feed-forward ${l}`, parts.feed_forward[l] - mean.feed_forward[l]],
    ])
  );
  const rows = /** @type {[string, number][]} */ ([
    ["embedding", parts.embedding - mean.embedding],
    ["position", parts.position - mean.position],
    ...layers,
    ["constant", parts.constant - mean.constant],
  ]);
  return rows.filter(([, value]) => value !== 0);
}
