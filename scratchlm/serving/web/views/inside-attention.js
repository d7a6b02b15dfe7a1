// Attention: what kind of head each one is, and where the chosen head attends.
import { ArcDiagram } from "../components/arc-diagram.js";
import { HeatMap } from "../components/heat-map.js";
import { button, h, put } from "../dom.js";
import { percent, visible } from "../format.js";

/** @type {Record<string, [string, string]>} */
const SUMMARIES = {
  previous: ["Previous token", "mean weight on the token before"],
  first: ["First token", "mean weight on the first token, where heads with nothing to do attend"],
  itself: ["Itself", "mean weight on the token itself"],
  induction: ["Induction", "mean weight on the token that followed an earlier occurrence of the same token"],
};

/** @param {HTMLElement} place @param {import("./inside.js").Panel} panel */
export function showAttention(place, { data, focus, look }) {
  const tokens = data.tokens.map((token) => token.text);
  const names = tokens.map(visible);
  const nLayers = data.heads.length;
  const nHeads = data.heads[0].length;
  const layer = () => (focus.layer >= 0 && focus.layer < nLayers ? focus.layer : strongest(data)[0]);
  const head = () => (focus.layer >= 0 ? Math.min(focus.head, nHeads - 1) : strongest(data)[1]);
  const token = () => (focus.token >= 0 && focus.token < tokens.length ? focus.token : tokens.length - 1);
  const summary = new HeatMap();
  const matrix = new HeatMap();
  const arcs = new ArcDiagram();
  const title = h("h2", {});
  const kinds = h("div", { class: "segmented", role: "group", "aria-label": "Summary of the heads" });
  const what = h("p", { class: "hint" });

  const draw = () => {
    const kind = /** @type {"previous"} */ (focus.summary in SUMMARIES ? focus.summary : "previous");
    put(
      kinds,
      Object.entries(SUMMARIES).map(([name, [words]]) =>
        button(
          words,
          () => {
            look({ summary: name });
            draw();
          },
          { "aria-pressed": String(name === kind) },
        ),
      ),
    );
    const isMissing = data.heads[0][0][kind] === null;
    what.textContent = isMissing
      ? "No token occurs twice in this text, so induction cannot be measured."
      : `Colour: ${SUMMARIES[kind][1]}.`;
    summary.show(
      {
        rows: nLayers,
        columns: nHeads,
        cell: nLayers > 16 ? 15 : 24,
        label: "Heads",
        value: (l, i) => data.heads[l][i][kind] ?? 0,
        name: (l, i) =>
          `layer ${l}, head ${i}: ${SUMMARIES[kind][0].toLowerCase()} ${percent(data.heads[l][i][kind] ?? 0)}`,
        rowNames: Array.from({ length: nLayers }, (_, l) => String(l)),
        columnNames: Array.from({ length: nHeads }, (_, i) => String(i)),
      },
      { row: layer(), column: head() },
    );
    const weights = data.attention[layer()][head()];
    title.textContent = `Layer ${layer()}, head ${head()}`;
    matrix.show(
      {
        rows: tokens.length,
        columns: tokens.length,
        cell: tokens.length > 30 ? 12 : 18,
        label: "Attention matrix",
        value: (q, k) => weights[q][k] ?? null,
        name: (q, k) => `${names[q]} attends to ${names[k]}: ${percent(weights[q][k] ?? 0)}`,
        rowNames: names,
        columnNames: names,
      },
      { row: token(), column: Math.min(token(), weights[token()].length - 1) },
    );
    arcs.show(tokens, weights[token()], token());
  };
  summary.addEventListener("pick", (event) => {
    const { row, column } = /** @type {CustomEvent} */ (event).detail;
    look({ layer: row, head: column });
    draw();
  });
  matrix.addEventListener("pick", (event) => {
    look({ token: /** @type {CustomEvent} */ (event).detail.row });
    draw();
  });
  arcs.addEventListener("pick", (event) => {
    look({ token: /** @type {CustomEvent} */ (event).detail });
    draw();
  });
  put(
    place,
    h(
      "div",
      { class: "sides" },
      h("div", { class: "card" }, h("h2", {}, "Heads"), kinds, what, summary),
      h(
        "div",
        { class: "card" },
        title,
        h("p", { class: "hint" }, "Click a token to see what it attends to."),
        arcs,
        h("p", { class: "hint" }, "Rows attend to columns."),
        matrix,
      ),
    ),
  );
  draw();
}

/** The head with the strongest attention to the token before, to begin with. @param {import("./inside.js").Inspection} data */
function strongest(data) {
  let best = [0, 0];
  data.heads.forEach((row, l) =>
    row.forEach((one, i) => {
      if (one.previous > data.heads[best[0]][best[1]].previous) best = [l, i];
    }),
  );
  return best;
}
