// Attention of one token as arcs to the tokens that it attends to.
import { put, svg } from "../dom.js";
import { percent, visible } from "../format.js";

const FAINT = 0.02; // an arc below this weight is not drawn
const LETTER = 7.3; // width of a letter in pixels

/** Sends `pick` with the index of a token. */
export class ArcDiagram extends HTMLElement {
  /**
   * @param {string[]} tokens
   * @param {number[]} weights of the tokens that `chosen` attends to
   * @param {number} chosen
   */
  show(tokens, weights, chosen) {
    const shown = tokens.map((one) => {
      const text = visible(one);
      return text.length > 12 ? `${text.slice(0, 11)}…` : text;
    });
    const widths = shown.map((one) => one.length * LETTER + 10);
    const centres = widths.map(
      (width, i) => widths.slice(0, i).reduce((sum, one) => sum + one, 0) + width / 2,
    );
    const total = widths.reduce((sum, one) => sum + one, 0);
    const furthest = Math.max(
      0,
      ...weights.map((weight, i) => (weight >= FAINT ? centres[chosen] - centres[i] : 0)),
    );
    const tall = Math.min(150, 24 + furthest * 0.4);
    const arcs = weights.map((weight, i) => {
      if (weight < FAINT) return null;
      const [from, to] = [centres[chosen], centres[i]];
      const rise = Math.min(tall - 8, 16 + Math.abs(from - to) * 0.4);
      const path =
        i === chosen
          ? `M${from - 5} ${tall} C${from - 14} ${tall - 24} ${from + 14} ${tall - 24} ${from + 5} ${tall}`
          : `M${from} ${tall} C${from} ${tall - rise * 1.3} ${to} ${tall - rise * 1.3} ${to} ${tall}`;
      return svg(
        "path",
        { class: "arc", d: path, "stroke-width": 1 + 7 * weight, "stroke-opacity": 0.25 + 0.75 * weight },
        svg("title", {}, `${shown[chosen]} attends to ${shown[i]}: ${percent(weight)}`),
      );
    });
    const words = shown.map((one, i) =>
      svg(
        "g",
        {
          "data-i": i,
          class: i === chosen ? "chosen" : "",
          onclick: () => this.dispatchEvent(new CustomEvent("pick", { detail: i })),
        },
        svg("rect", {
          x: centres[i] - widths[i] / 2,
          y: tall,
          width: widths[i],
          height: 22,
          fill: "transparent",
        }),
        svg("text", { x: centres[i], y: tall + 15, "text-anchor": "middle" }, one),
      ),
    );
    put(
      this,
      svg(
        "svg",
        {
          width: total,
          height: tall + 24,
          viewBox: `0 0 ${total} ${tall + 24}`,
          role: "img",
          "aria-label": `Attention of ${shown[chosen]}`,
        },
        arcs,
        words,
      ),
    );
    this.scrollLeft = centres[chosen] - this.clientWidth + 40; // the chosen token stays in sight
  }
}

customElements.define("arc-diagram", ArcDiagram);
