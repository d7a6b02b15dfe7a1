// A text as its tokens, coloured by probability; the arrow keys walk through them.
import { h, put } from "../dom.js";
import { percent, visible } from "../format.js";

/** @typedef {{text: string, prob?: number | null, mark?: boolean, label?: string}} ShownToken `mark` draws a frame */

/** Sends `look` (pointer or arrow keys) and `pick` (click or Enter) with the index of the token as `detail`. */
export class TokenText extends HTMLElement {
  /** @type {ShownToken[]} */
  #tokens = [];
  chosen = -1;
  isWalkable = true;

  connectedCallback() {
    this.classList.add("model");
    if (this.isWalkable && !this.hasAttribute("role")) {
      this.setAttribute("role", "listbox");
      this.setAttribute("aria-orientation", "horizontal");
      if (!this.hasAttribute("aria-label")) this.setAttribute("aria-label", "Tokens");
      this.addEventListener("keydown", (event) => this.#walk(event));
      this.addEventListener("pointerover", (event) => this.#tell("look", event.target));
      this.addEventListener("click", (event) => this.#tell("pick", event.target));
      this.addEventListener("focusin", (event) => this.#tell("look", event.target));
    }
  }

  get tokens() {
    return this.#tokens;
  }

  set tokens(tokens) {
    this.#tokens = [];
    put(this);
    this.push(...tokens);
    this.choose(Math.min(this.chosen, tokens.length - 1));
  }

  /** Add tokens at the end. @param {...ShownToken} tokens */
  push(...tokens) {
    const first = this.#tokens.length;
    this.#tokens.push(...tokens);
    this.append(...tokens.map((token, i) => this.#element(token, first + i)));
  }

  /** Mark one token; with `focus`, put the keyboard there. @param {number} index */
  choose(index, { focus = false } = {}) {
    const at = (/** @type {number} */ i) =>
      /** @type {HTMLElement | null} */ (this.querySelector(`[data-i="${i}"]`));
    const before = at(this.chosen);
    before?.classList.remove("chosen");
    before?.setAttribute("aria-selected", "false");
    if (before) before.tabIndex = -1;
    this.chosen = index;
    const now = at(index) ?? at(0);
    if (!now || !this.isWalkable) return;
    now.tabIndex = 0;
    if (index < 0) return;
    now.classList.add("chosen");
    now.setAttribute("aria-selected", "true");
    if (focus) now.focus();
  }

  /**
   * @param {ShownToken} token
   * @param {number} i
   */
  #element(token, i) {
    const prob = token.prob ?? null;
    const about =
      token.label ?? (prob === null ? visible(token.text) : `${visible(token.text)} ${percent(prob)}`);
    const props = this.isWalkable
      ? {
          role: "option",
          "aria-selected": "false",
          "aria-label": about,
          tabindex: i === 0 && this.chosen < 0 ? 0 : -1,
        }
      : {};
    const classes = ["tok", prob === null ? "plain" : "", token.mark ? "mark" : ""].join(" ").trim();
    const text = token.text.replace(/\n/g, "⏎\n");
    return h(
      "span",
      {
        class: classes,
        "data-i": i,
        title: about,
        vars: prob === null ? {} : { "--p": shade(prob) },
        ...props,
      },
      text || "∅",
    );
  }

  /** @param {KeyboardEvent} event */
  #walk(event) {
    const last = this.#tokens.length - 1;
    const moves = /** @type {Record<string, number>} */ ({
      ArrowRight: this.chosen + 1,
      ArrowLeft: this.chosen - 1,
      Home: 0,
      End: last,
    });
    if (event.key in moves) {
      event.preventDefault();
      const to = Math.min(Math.max(moves[event.key], 0), last);
      this.choose(to, { focus: true });
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.#tell("pick", event.target);
    }
  }

  /**
   * @param {string} name
   * @param {EventTarget | null} target
   */
  #tell(name, target) {
    const i = target instanceof HTMLElement ? target.dataset.i : undefined;
    if (i !== undefined) this.dispatchEvent(new CustomEvent(name, { detail: Number(i) }));
  }
}

/** How strongly a probability is coloured, 0 to 1; even a small step from certain is visible. @param {number} prob */
export const shade = (prob) => Math.max(0, 1 + Math.log10(Math.max(prob, 1e-3)) / 3).toFixed(3);

/** What the colours mean. */
export function legend() {
  const at = [0.001, 0.01, 0.1, 0.5, 1];
  return h(
    "p",
    { class: "legend" },
    "Probability of the token: ",
    at.map((p) =>
      h(
        "span",
        { class: "tok", vars: { "--p": shade(p) } },
        p === 0.001 ? "≤ 0.1%" : percent(p).replace(".0", ""),
      ),
    ),
  );
}

customElements.define("token-text", TokenText);
