// The tree of a beam search: which beginnings were continued, which ended, which were dropped.
import { h, put, svg } from "../dom.js";
import { decimal, visible } from "../format.js";

/** @typedef {{number: number, parent: number, id: number, text: string, log_prob: number,
 *    fate: "continued" | "ended" | "dropped"}} TreeNode log_prob is that of the whole path, in nats */

const WIDTH = 108; // of a generation
const HEIGHT = 30; // of a leaf
const ROOT = 0;

export class BeamTree extends HTMLElement {
  /**
   * @param {TreeNode[]} nodes
   * @param {number[]} best ids of the best text
   * @param {boolean} hasDropped whether to draw the candidates that were dropped at once
   */
  show(nodes, best, hasDropped) {
    const kept = hasDropped ? nodes : nodes.filter((one) => one.fate !== "dropped");
    /** @type {Map<number, TreeNode[]>} */
    const children = new Map();
    for (const one of kept) children.set(one.parent, [...(children.get(one.parent) ?? []), one]);
    const onBest = pathOf(children, best);
    /** @type {SVGElement[]} */
    const edges = [];
    /** @type {SVGElement[]} */
    const boxes = [];
    let nLeaves = 0;
    let depthMax = 0;
    /** @param {number} number @param {number} depth @returns {number} the height at which a node stands */
    const place = (number, depth) => {
      depthMax = Math.max(depthMax, depth);
      const own = [...(children.get(number) ?? [])].sort(
        (a, b) => Number(onBest.has(b.number)) - Number(onBest.has(a.number)) || b.log_prob - a.log_prob,
      );
      const heights = own.map((one) => place(one.number, depth + 1));
      const y = heights.length ? heights[0] : HEIGHT * nLeaves++ + HEIGHT / 2;
      own.forEach((one, i) => {
        edges.push(
          svg("path", {
            class: `edge ${onBest.has(one.number) ? "best" : ""}`,
            d: curve(depth, y, heights[i]),
          }),
        );
        boxes.push(box(one, depth + 1, heights[i], onBest.has(one.number)));
      });
      return y;
    };
    const top = place(ROOT, 0);
    const root = svg(
      "g",
      { class: "node best", transform: `translate(0 ${top})` },
      svg("rect", { y: -11, width: 64, height: 22, rx: 6 }),
      svg("text", { x: 32, y: 4, "text-anchor": "middle" }, "prompt"),
    );
    const width = 64 + depthMax * WIDTH;
    const height = Math.max(nLeaves, 1) * HEIGHT;
    put(
      this,
      h(
        "div",
        { class: "scroll", tabindex: 0, role: "img", "aria-label": `Tree of ${kept.length} tokens` },
        svg("svg", { width, height, viewBox: `-2 0 ${width + 4} ${height}` }, edges, root, boxes),
      ),
    );
  }
}

/**
 * The numbers of the nodes of one text.
 * @param {Map<number, TreeNode[]>} children
 * @param {number[]} ids
 */
function pathOf(children, ids) {
  const found = new Set();
  let at = ROOT;
  for (const id of ids) {
    const next = children.get(at)?.find((one) => one.id === id && one.fate !== "dropped");
    if (!next) break;
    found.add(next.number);
    at = next.number;
  }
  return found;
}

/** @param {number} depth @param {number} from @param {number} to */
function curve(depth, from, to) {
  const x = depth === 0 ? 64 : 64 + (depth - 1) * WIDTH + WIDTH - 6;
  const end = 64 + depth * WIDTH + 18;
  return `M${x} ${from} C${(x + end) / 2} ${from} ${(x + end) / 2} ${to} ${end} ${to}`;
}

/** @param {TreeNode} one @param {number} depth @param {number} y @param {boolean} isBest */
function box(one, depth, y, isBest) {
  const shown = visible(one.text);
  const text = shown.length > 10 ? `${shown.slice(0, 9)}…` : shown;
  return svg(
    "g",
    {
      class: `node ${one.fate} ${isBest ? "best" : ""}`,
      transform: `translate(${64 + (depth - 1) * WIDTH + 18} ${y})`,
    },
    svg("title", {}, `${shown}, ${one.fate}; log-probability of the path ${decimal(one.log_prob)} nats`),
    svg("rect", { y: -11, width: WIDTH - 24, height: 22, rx: 6 }),
    svg(
      "text",
      { x: (WIDTH - 24) / 2, y: 4, "text-anchor": "middle" },
      text + (one.fate === "ended" ? " ■" : ""),
    ),
  );
}

customElements.define("beam-tree", BeamTree);
