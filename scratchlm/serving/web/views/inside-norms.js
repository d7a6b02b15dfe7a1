// Norms: the lengths of the vectors that flow through the model.
import { LineChart } from "../components/line-chart.js";
import { button, h, put } from "../dom.js";
import { decimal, visible } from "../format.js";

/** @param {HTMLElement} place @param {import("./inside.js").Panel} panel */
export function showNorms(place, { data, focus, look }) {
  const chart = new LineChart();
  const words = h("div", { class: "chips" });
  const draw = () => {
    const i = focus.token >= 0 && focus.token < data.tokens.length ? focus.token : data.tokens.length - 1;
    put(
      words,
      data.tokens.map((token, at) =>
        button(
          visible(token.text),
          () => {
            look({ token: at });
            draw();
          },
          { class: "small", "aria-pressed": String(at === i) },
        ),
      ),
    );
    const line = (/** @type {number[][]} */ rows, first = 0) =>
      /** @type {[number, number][]} */ (rows.map((row, l) => [first + l, row[i]]));
    chart.show({
      label: `Norms at ${visible(data.tokens[i].text)}`,
      xName: "layer",
      xText: (x) => (x === 0 ? "embedding" : `after layer ${x - 1}`),
      format: (y) => decimal(y, y >= 100 ? 0 : 1),
      height: 280,
      series: [
        { name: "residual stream", points: line(data.norms.residual) },
        { name: "added by attention", points: line(data.norms.attention, 1) },
        { name: "added by the feed-forward network", points: line(data.norms.feed_forward, 1) },
      ],
    });
  };
  put(
    place,
    h(
      "div",
      { class: "card" },
      h("h2", {}, "Norms"),
      h(
        "p",
        { class: "hint" },
        "Norm of the residual stream at one token after each layer, and of what each layer adds to it. At the first token it is often far larger than elsewhere: many heads use that token as an attention sink.",
      ),
      words,
      chart,
    ),
  );
  draw();
}
