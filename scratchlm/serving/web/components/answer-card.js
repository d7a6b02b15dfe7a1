// One answer: its text as it comes, what it cost, and what can be done with it.
import { button, h, put } from "../dom.js";
import { decimal, plural } from "../format.js";
import { TokenText } from "./token-text.js";

/** @typedef {import("../answers.js").Answer} Answer */

const MEASURABLE_S = 0.2; // a shorter answer came in one piece
const ENDS = /** @type {Record<string, string>} */ ({
  stop: "complete",
  length: "reached the maximum length",
  "": "",
});

/** Sends `choose`, and `revise` with the edited beginning of the answer as `detail`. */
export class AnswerCard extends HTMLElement {
  /** @type {Answer} */
  answer = /** @type {any} */ (null);
  isColoured = false;
  isChoosable = false;
  isChosen = false;
  isEditable = true;
  /** @type {string} address of the microscope for this answer */
  microscope = "";
  #nShown = 0; // characters or tokens that are drawn
  #isWaiting = false; // for the next frame
  #text = h("div", { class: "model answer-text" });
  #coloured = new TokenText();
  #foot = h("div", { class: "foot" });

  connectedCallback() {
    if (this.childElementCount) return;
    this.#coloured.isWalkable = false;
    const name = h("b", {}, this.answer.model.id);
    const label = this.answer.copy
      ? `${this.answer.model.id}, answer ${this.answer.copy + 1}`
      : this.answer.model.id;
    fillHost(this, label);
    put(this, h("div", { class: "head" }, name), this.isColoured ? this.#coloured : this.#text, this.#foot);
    this.#draw();
  }

  /** Show what has come since; drawn once a frame. */
  changed() {
    if (this.#isWaiting) return;
    this.#isWaiting = true;
    requestAnimationFrame(() => {
      this.#isWaiting = false;
      this.#draw();
    });
  }

  #draw() {
    const { answer } = this;
    if (this.isColoured) {
      this.#coloured.push(...answer.tokens.slice(this.#nShown));
      this.#nShown = answer.tokens.length;
    } else {
      this.#text.append(answer.text.slice(this.#nShown)); // a text node
      this.#nShown = answer.text.length;
    }
    this.classList.toggle("running", answer.state === "running");
    this.classList.toggle("picked", this.isChosen);
    this.#drawFoot();
  }

  #drawFoot() {
    const { answer } = this;
    const isRunning = answer.state === "running";
    if (answer.problem) return put(this.#foot, h("p", { class: "problem", role: "alert" }, answer.problem));
    const speed =
      answer.seconds > MEASURABLE_S ? `${decimal((answer.nTokens - 1) / answer.seconds, 0)} per second` : "";
    const why = isRunning ? "" : answer.state === "stopped" ? "stopped" : (ENDS[answer.reason] ?? "");
    const facts = h(
      "span",
      { class: "facts-line" },
      [answer.nTokens ? plural(answer.nTokens, "token") : "", speed, why].filter(Boolean).join(" · ") ||
        "waiting for the first token …",
    );
    if (isRunning) return put(this.#foot, facts);
    put(
      this.#foot,
      facts,
      h(
        "span",
        { class: "actions" },
        this.isChoosable &&
          button(this.isChosen ? "Chosen" : "Choose", () => this.dispatchEvent(new Event("choose")), {
            class: "small",
            "aria-pressed": String(this.isChosen),
          }),
        this.isEditable && button("Edit", () => this.#edit(), { class: "small" }),
        button("Copy", (event) => copy(answer.text, event), { class: "small" }),
        this.microscope && h("a", { class: "small button", href: this.microscope }, "Microscope"),
      ),
    );
  }

  /** Change the answer, and let the model go on from there. */
  #edit() {
    const box = h("textarea", {
      rows: Math.min(12, 2 + Math.floor(this.answer.text.length / 60)),
      "aria-label": "Beginning of the answer",
    });
    box.value = this.answer.text;
    const form = h(
      "form",
      {
        class: "edit",
        onsubmit: (/** @type {Event} */ event) => {
          event.preventDefault();
          this.dispatchEvent(new CustomEvent("revise", { detail: box.value }));
        },
      },
      box,
      h("p", { class: "hint" }, "Change a word and delete the rest: the model continues your text."),
      h("button", { class: "small primary" }, "Continue from here"),
      button("Cancel", () => form.replaceWith(this.isColoured ? this.#coloured : this.#text), {
        class: "small",
      }),
    );
    (this.isColoured ? this.#coloured : this.#text).replaceWith(form);
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
  }
}

/** @param {HTMLElement} host @param {string} label */
function fillHost(host, label) {
  host.setAttribute("role", "group");
  host.setAttribute("aria-label", label);
}

/**
 * Put a text on the clipboard, and say so on the button.
 * @param {string} text
 * @param {Event} event
 */
async function copy(text, event) {
  const from = /** @type {HTMLButtonElement} */ (event.currentTarget);
  await navigator.clipboard.writeText(text);
  from.textContent = "Copied";
  setTimeout(() => {
    from.textContent = "Copy";
  }, 1500);
}

customElements.define("answer-card", AnswerCard);
