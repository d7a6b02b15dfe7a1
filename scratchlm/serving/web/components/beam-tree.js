// The tree of a beam search: which beginnings were continued, which ended, which were dropped.
import { h, put, svg } from "../dom.js";
import { decimal, visible } from "../format.js";

/** @typedef {{number: number, parent: number, id: number, text: string, log_prob: number,
 *    fate: "continued" | "ended" | "dropped"}} TreeNode log_prob is that of the whole path, in nats */

/** @typedef {{node: TreeNode | null, depth: number, row: number, isBest: boolean}} Placed node null: the prompt */
/** @typedef {{from: Placed, to: Placed}} Edge */

const WIDTH = 108; // of a generation
const HEIGHT = 30; // of a leaf
const LANE = 13; // between branches where the tree grows downwards
const LINE = 22; // of a token there
const ROOT = 0;
const narrow = matchMedia("(max-width: 36rem)"); // there the tree grows downwards, a token a line

export class BeamTree extends HTMLElement {
  #draw = () => {};

  connectedCallback() {
    narrow.addEventListener("change", this.#draw);
  }

  disconnectedCallback() {
    narrow.removeEventListener("change", this.#draw);
  }

  /**
   * @param {TreeNode[]} nodes
   * @param {number[]} best ids of the best text
   * @param {boolean} hasDropped whether to draw the candidates that were dropped at once
   */
  show(nodes, best, hasDropped) {
    const kept = hasDropped ? nodes : nodes.filter((one) => one.fate !== "dropped");
    const { places, edges } = layout(kept, best);
    this.disconnectedCallback();
    this.#draw = () => {
      const picture = narrow.matches ? downwards(places, edges) : sideways(places, edges);
      const label = `Tree of ${kept.length} tokens`;
      put(this, h("div", { class: "scroll", tabindex: 0, role: "img", "aria-label": label }, picture));
    };
    this.connectedCallback();
    this.#draw();
  }
}

/**
 * Place every node: its depth, and a row for each branch.
 * @param {TreeNode[]} nodes
 * @param {number[]} best
 */
function layout(nodes, best) {
  /** @type {Map<number, TreeNode[]>} */
  const children = new Map();
  for (const one of nodes) children.set(one.parent, [...(children.get(one.parent) ?? []), one]);
  const onBest = pathOf(children, best);
  /** @type {Placed[]} */
  const places = [];
  /** @type {Edge[]} */
  const edges = [];
  /** @type {number[]} by depth, the first row that no node uses */
  const free = [];
  /**
   * Place a node and its best continuations in one row, the highest that is free at each of their depths; then the
   * other continuations below, those at the end of the row first, so that a branch stays near its parent.
   * @param {TreeNode | null} first null for the prompt
   * @param {number} depth
   * @returns {Placed}
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
    const placed = chain.map((node, i) => {
      free[depth + i] = row + 1;
      return { node, depth: depth + i, row, isBest: !node || onBest.has(node.number) };
    });
    places.push(...placed);
    placed.slice(1).forEach((to, i) => edges.push({ from: placed[i], to }));
    for (let i = others.length - 1; i >= 0; i -= 1) {
      for (const one of others[i]) edges.push({ from: placed[i], to: place(one, depth + i + 1) });
    }
    return placed[0];
  };
  place(null, 0);
  return { places, edges };
}

/** The tree as boxes from left to right. @param {Placed[]} places @param {Edge[]} edges */
function sideways(places, edges) {
  const width = 64 + Math.max(...places.map((one) => one.depth)) * WIDTH;
  const height = (Math.max(...places.map((one) => one.row)) + 1) * HEIGHT;
  const left = (/** @type {Placed} */ { depth }) => (depth ? 64 + (depth - 1) * WIDTH + 18 : 0);
  const middle = (/** @type {Placed} */ { row }) => HEIGHT * row + HEIGHT / 2;
  return svg(
    "svg",
    { width, height, viewBox: `-2 0 ${width + 4} ${height}` },
    edges.map(({ from, to }) => {
      const x = from.depth ? left(from) + WIDTH - 24 : 64;
      const bend = (x + left(to)) / 2;
      const d = `M${x} ${middle(from)} C${bend} ${middle(from)} ${bend} ${middle(to)} ${left(to)} ${middle(to)}`;
      return svg("path", { class: `edge ${to.isBest ? "best" : ""}`, d });
    }),
    places.map((one) => {
      const box = one.node ? WIDTH - 24 : 64;
      return svg(
        "g",
        { class: kindOf(one), transform: `translate(${left(one)} ${middle(one)})` },
        one.node && svg("title", {}, factsOf(one.node)),
        svg("rect", { y: -11, width: box, height: 22, rx: 6 }),
        svg("text", { x: box / 2, y: 4, "text-anchor": "middle" }, nameOf(one.node, 10)),
      );
    }),
  );
}

/** The tree with a line for each token, and a lane for each branch. @param {Placed[]} places @param {Edge[]} edges */
function downwards(places, edges) {
  const lines = [...places].sort((a, b) => a.depth - b.depth || a.row - b.row);
  const y = new Map(lines.map((one, i) => [one, LINE * i + LINE / 2]));
  const x = (/** @type {Placed} */ { row }) => LANE * row + 8;
  const words = LANE * (Math.max(...places.map((one) => one.row)) + 1) + 10;
  const [width, height] = [words + 148, LINE * lines.length];
  return svg(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}` },
    edges.map(({ from, to }) => {
      const [top, bottom] = [/** @type {number} */ (y.get(from)), /** @type {number} */ (y.get(to))];
      const bend = Math.min(bottom, top + LINE);
      const d = `M${x(from)} ${top} C${x(from)} ${bend} ${x(to)} ${top} ${x(to)} ${bend} V${bottom}`;
      return svg("path", { class: `edge ${to.isBest ? "best" : ""}`, d });
    }),
    lines.map((one) =>
      svg(
        "g",
        { class: kindOf(one), transform: `translate(0 ${y.get(one)})` },
        one.node && svg("title", {}, factsOf(one.node)),
        svg("rect", { x: x(one) - 4, y: -4, width: 8, height: 8, rx: 4 }),
        svg("text", { x: words, y: 4 }, nameOf(one.node, 12)),
        one.node && svg("text", { x: width, y: 4, "text-anchor": "end" }, decimal(one.node.log_prob)),
      ),
    ),
  );
}

const kindOf = (/** @type {Placed} */ one) => `node ${one.node?.fate ?? ""} ${one.isBest ? "best" : ""}`;

const factsOf = (/** @type {TreeNode} */ one) =>
  `${visible(one.text)}, ${one.fate}; log-probability of the path ${decimal(one.log_prob)} nats`;

/** A token in few letters. @param {TreeNode | null} node @param {number} length */
function nameOf(node, length) {
  const name = node ? visible(node.text) : "prompt";
  return (
    (name.length > length ? `${name.slice(0, length - 1)}…` : name) + (node?.fate === "ended" ? " ■" : "")
  );
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

customElements.define("beam-tree", BeamTree);
