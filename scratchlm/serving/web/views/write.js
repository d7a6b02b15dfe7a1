// Write and chat: stream one answer or several, of one model or two, and go on from any of them.
import { Answer, generate } from "../answers.js";
import { AnswerCard } from "../components/answer-card.js";
import { growingText } from "../components/growing-text.js";
import { showWriters } from "../components/model-picker.js";
import { SamplingControls } from "../components/sampling-controls.js";
import { button, h, put } from "../dom.js";
import { inAddress, settingsFrom } from "../sampling.js";
import { link } from "../state.js";
import { settingsOf } from "./write-settings.js";

/** @typedef {import("../api.js").Model} Model */
/** @typedef {import("../answers.js").Message} Message */
/** @typedef {{request: string, answers: Answer[], chosen: number, seed: number}} Turn */

const IDEAS = [
  "What is the opposite of heavy?",
  "Write one sentence about the sea.",
  "Name three animals that can swim.",
];
const BEGINNINGS = ["Once upon a time", "The little robot", "In the morning, Mia"];

/** @param {HTMLElement} place @param {import("../state.js").Address} address */
export function show(place, address) {
  return showWriters(place, (models) => new WriteView(place, address, models));
}

export class WriteView {
  /**
   * @param {HTMLElement} place
   * @param {import("../state.js").Address} address
   * @param {Model[]} models
   */
  constructor(place, address, models) {
    this.place = place;
    this.address = address;
    this.models = models;
    const named = models.find((one) => one.id === address.text("model"));
    this.model = named ?? models.find((one) => one.can_chat) ?? models[0];
    this.other = models.find((one) => one.id === address.text("other")) ?? null;
    this.wantsText = address.text("mode") === "text";
    this.nAnswers = Math.min(Math.max(address.number("n", 1), 1), 4);
    this.isColoured = address.text("colours") === "1";
    this.system = address.text("system");
    this.controls = new SamplingControls();
    this.controls.settings = settingsFrom(address);
    /** @type {Turn[]} */
    this.turns = [];
    /** @type {AbortController | null} */
    this.running = null;
    this.thread = h("div", { class: "thread" });
    this.status = h("p", { class: "hidden", role: "status" });
    this.bar = h("div", { class: "bar" });
    this.composer = growingText({
      label: "Message",
      isLabelHidden: true,
      value: address.text("prompt"),
      onsend: () => this.send(),
      oninput: () => this.keep(),
    });
  }

  /** Whether the model answers a conversation, rather than continuing a text. */
  get isChat() {
    return !this.wantsText && this.model.can_chat && (this.other?.can_chat ?? true);
  }

  /** Whether the earlier turns of a conversation are part of the prompt: not for assistants of single questions. */
  get remembers() {
    return this.model.supports_conversations && (this.other?.supports_conversations ?? true);
  }

  draw() {
    const settings = h(
      "details",
      { class: "panel", open: matchMedia("(min-width: 62rem)").matches },
      h("summary", {}, "Settings"),
      settingsOf(this),
      this.controls,
    );
    this.controls.addEventListener("change", () => this.keep());
    put(
      this.place,
      h("h1", { class: "hidden" }, "Write"),
      h(
        "div",
        { class: "work" },
        h(
          "div",
          { class: "stage" },
          this.thread,
          h("div", { class: "composer" }, this.composer.field, this.bar, this.status),
        ),
        settings,
      ),
    );
    this.drawThread();
    this.composer.box.focus({ preventScroll: true });
  }

  /** Put the state in the address bar. */
  keep() {
    this.address.set({
      model: this.model.id,
      other: this.other?.id,
      mode: this.wantsText ? "text" : null,
      n: this.nAnswers > 1 ? this.nAnswers : null,
      colours: this.isColoured,
      system: this.isChat ? this.system : null,
      prompt: this.composer.box.value,
      ...inAddress(this.controls.settings),
    });
  }

  clear() {
    this.stop();
    this.turns = [];
  }

  stop() {
    this.running?.abort();
  }

  send() {
    const request = this.composer.box.value;
    if (this.running || !request.trim()) return;
    this.keep();
    if (!this.isChat) this.turns = [];
    this.turns.push({ request, answers: [], chosen: 0, seed: Number(this.controls.settings.seed) });
    if (this.isChat) {
      this.composer.box.value = "";
      this.composer.grow();
    }
    this.answer(this.turns.length - 1);
  }

  /**
   * Generate the answers of a turn; later turns are dropped.
   * @param {number} index
   * @param {string} [begun] what the answer begins with
   */
  async answer(index, begun = "") {
    const turn = this.turns[index];
    this.turns.length = index + 1;
    const controller = new AbortController();
    this.running = controller;
    const settings = { ...this.controls.settings, seed: turn.seed };
    const models = this.other ? [this.model, this.other] : [this.model];
    const groups = models.map((model) =>
      Array.from({ length: this.nAnswers }, (_, copy) => new Answer(model, copy, begun)),
    );
    turn.answers = groups.flat();
    turn.chosen = 0;
    this.drawThread();
    scrollTo({ top: document.body.scrollHeight });
    this.status.textContent = "The model is writing.";
    const prompt = this.#prompt(index, begun);
    const cards = new Map(
      [...this.thread.querySelectorAll("answer-card")].map((card) => [
        /** @type {AnswerCard} */ (card).answer,
        card,
      ]),
    );
    const changed = (/** @type {Answer} */ one) => {
      const isAtEnd = innerHeight + scrollY >= document.body.scrollHeight - 80;
      /** @type {AnswerCard | undefined} */ (cards.get(one))?.changed();
      if (isAtEnd) scrollTo({ top: document.body.scrollHeight });
    };
    await Promise.all(
      groups.map((answers) =>
        generate(answers, prompt, {
          settings,
          hasProbabilities: this.isColoured,
          signal: controller.signal,
          changed,
        }),
      ),
    );
    if (this.running === controller) this.running = null;
    this.status.textContent = turn.answers[0].problem ? "" : `Answer: ${turn.answers[0].text}`;
    this.#drawBar();
  }

  /**
   * @param {number} index of the turn to answer
   * @param {string} begun
   * @returns {import("../answers.js").Prompt}
   */
  #prompt(index, begun) {
    if (!this.isChat) return { text: this.turns[index].request + begun };
    /** @type {Message[]} */
    const messages = this.system ? [{ role: "system", content: this.system }] : [];
    for (const turn of this.turns.slice(this.remembers ? 0 : index, index + 1)) {
      messages.push({ role: "user", content: turn.request });
      const given = turn === this.turns[index] ? begun : turn.answers[turn.chosen]?.text;
      if (given) messages.push({ role: "assistant", content: given });
    }
    return { messages };
  }

  drawThread() {
    const { isChat } = this;
    this.composer.box.placeholder = isChat ? "Ask something" : "The beginning of a text";
    put(this.thread, this.turns.length ? this.turns.map((turn, i) => this.#turn(turn, i)) : this.#welcome());
    this.#drawBar();
  }

  #welcome() {
    const ideas = this.isChat ? IDEAS : BEGINNINGS;
    return h(
      "div",
      { class: "welcome" },
      h("p", { class: "display" }, this.isChat ? "Talk to your model." : "Begin a text."),
      h(
        "p",
        {},
        `${this.model.id} runs on this machine. ${this.isChat ? "Ask something, or try one of these:" : "It continues what you write:"}`,
      ),
      h(
        "div",
        { class: "ideas" },
        ideas.map((idea) =>
          button(idea, () => {
            this.composer.box.value = idea;
            this.send();
          }),
        ),
      ),
    );
  }

  /** @param {Turn} turn @param {number} index */
  #turn(turn, index) {
    const several = turn.answers.length > 1;
    const cards = turn.answers.map((answer, i) => {
      const card = new AnswerCard();
      Object.assign(card, {
        answer,
        isColoured: this.isColoured,
        isChoosable: several,
        isChosen: several && i === turn.chosen,
        microscope: this.#microscope(answer, turn),
      });
      card.addEventListener("choose", () => {
        turn.chosen = i;
        this.drawThread();
      });
      card.addEventListener("revise", (event) => {
        if (!this.running) this.answer(index, /** @type {CustomEvent} */ (event).detail);
      });
      return card;
    });
    return h(
      "section",
      { class: "turn", "aria-label": `Turn ${index + 1}` },
      this.isChat && this.#request(turn, index),
      h("div", { class: `answers ${several ? "several" : ""}` }, cards),
    );
  }

  /** @param {Turn} turn @param {number} index */
  #request(turn, index) {
    const text = h("p", { class: "model" }, turn.request);
    const holder = h(
      "div",
      { class: "request" },
      text,
      button(
        "Edit",
        () => {
          const edit = growingText({
            label: "Your message",
            isLabelHidden: true,
            value: turn.request,
            onsend: () => {
              if (this.running || !edit.box.value.trim()) return;
              turn.request = edit.box.value;
              this.answer(index);
            },
            hint: "Enter sends it again and replaces everything after it.",
          });
          put(holder, edit.field);
          edit.box.focus();
        },
        { class: "small quiet", "aria-label": "Edit your message" },
      ),
    );
    return holder;
  }

  /** @param {Answer} answer @param {Turn} turn */
  #microscope(answer, turn) {
    const first = this.turns[0];
    return link("microscope", {
      model: answer.model.id,
      prompt: turn === first || !this.remembers ? turn.request : null,
      mode: this.isChat ? "chat" : null,
      ...inAddress({
        ...this.controls.settings,
        seed: turn.seed,
        max_tokens: Math.min(Number(this.controls.settings.max_tokens), 60),
      }),
    });
  }

  #drawBar() {
    const last = this.turns[this.turns.length - 1];
    const again = () => {
      last.seed = Math.floor(Math.random() * 1e6);
      this.answer(this.turns.length - 1);
    };
    const accept = () => {
      this.composer.box.value = last.request + last.answers[last.chosen].text;
      this.composer.grow();
      this.clear();
      this.keep();
      this.drawThread();
    };
    put(
      this.bar,
      this.running
        ? button("Stop", () => this.stop(), { class: "primary stop" })
        : button(this.isChat ? "Send" : "Continue", () => this.send(), { class: "primary" }),
      last && !this.running && button("Regenerate", again, { title: "Another seed" }),
      last &&
        !this.running &&
        !this.isChat &&
        !last.answers[last.chosen]?.problem &&
        button("Add to the text", accept),
      last &&
        !this.running &&
        button(
          "Clear",
          () => {
            this.clear();
            this.drawThread();
          },
          { class: "quiet" },
        ),
      h(
        "span",
        { class: last ? "hint" : "hint keys-hint" },
        last ? `seed ${last.seed}` : "Enter sends, Shift+Enter starts a new line",
      ),
    );
  }
}
