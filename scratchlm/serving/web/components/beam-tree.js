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
    /** @type {number[]} by depth, the first row that no node uses */
    const free = [];
    /**
     * Place a node and its best continuations in one row, the highest that is free at each of their depths; then the
     * other continuations below, those at the end of the row first, so that a branch stays near its parent.
     * @param {TreeNode | null} first null for the prompt
     * @param {number} depth
     * @returns {number} the row's height
     */
    const place = (first, depth) => {
      /** @type {(TreeNode | null)[]} */
      const chain = [first];
      /** @type {TreeNode[][]} */
      const others = [];
      for (let at = first; ;) {
        const [next, ...rest] = bestFirst(children.get(at ? at.number : ROOT) ?? [], onBest);
        others.push(rest);
        if (!next) break;
        chain.push((at = next));
      }
      const row = Math.max(0, ...chain.map((_, i) => free[depth + i] ?? 0));
      chain.forEach((_, i) => {
        free[depth + i] = row + 1;
      });
      const y = HEIGHT * row + HEIGHT / 2;
      chain.forEach((one, i) => {
        if (!one) return;
        if (i > 0) edges.push(edge(depth + i - 1, y, y, onBest.has(one.number)));
        boxes.push(box(one, depth + i, y, onBest.has(one.number)));
      });
      for (let i = others.length - 1; i >= 0; i -= 1) {
        for (const one of others[i]) edges.push(edge(depth + i, y, place(one, depth + i + 1), false));
      }
      return y;
    };
    const top = place(null, 0);
    const root = svg(
      "g",
      { class: "node best", transform: `translate(0 ${top})` },
      svg("rect", { y: -11, width: 64, height: 22, rx: 6 }),
      svg("text", { x: 32, y: 4, "text-anchor": "middle" }, "prompt"),
    );
    const width = 64 + (free.length - 1) * WIDTH;
    const height = Math.max(...free) * HEIGHT;
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

/** Those of the best text first, then the most likely. @param {TreeNode[]} nodes @param {Set<number>} onBest */
const bestFirst = (nodes, onBest) =>
  [...nodes].sort(
    (a, b) => Number(onBest.has(b.number)) - Number(onBest.has(a.number)) || b.log_prob - a.log_prob,
  );

/** @param {number} depth of the parent @param {number} from @param {number} to @param {boolean} isBest */
function edge(depth, from, to, isBest) {
  const x = depth === 0 ? 64 : 64 + (depth - 1) * WIDTH + WIDTH - 6;
  const end = 64 + depth * WIDTH + 18;
  const d = `M${x} ${from} C${(x + end) / 2} ${from} ${(x + end) / 2} ${to} ${end} ${to}`;
  return svg("path", { class: `edge ${isBest ? "best" : ""}`, d });
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
