// The microscope: how each token of an answer was chosen, what else could have come, and what follows from it.
import { isStopped, post } from "../api.js";
import { CandidateList } from "../components/candidate-list.js";
import { growingText } from "../components/growing-text.js";
import { chosenModel, modelFacts, modelPicker, showWriters } from "../components/model-picker.js";
import { SamplingControls } from "../components/sampling-controls.js";
import { tabBar } from "../components/tab-bar.js";
import { TokenText, legend } from "../components/token-text.js";
import { button, h, problem, put } from "../dom.js";
import { visible } from "../format.js";
import { STANDARD, asRequest, inAddress, settingsFrom } from "../sampling.js";
import { showBeams } from "./microscope-beams.js";
import { showDecoders } from "./microscope-decoders.js";

/** @typedef {import("../api.js").Model} Model */
/** @typedef {import("../components/candidate-list.js").Step} Step */
/** @typedef {{name: string, promptIds: number[], ids: number[], steps: Step[]}} Branch */

export const SHORT = { ...STANDARD, max_tokens: 32 }; // a trace holds every candidate of every token
const TABS = { tokens: "Token by token", decoders: "Decoders side by side", beams: "Beam search" };

/** @param {HTMLElement} place @param {import("../state.js").Address} address */
export function show(place, address) {
  return showWriters(place, (models) => new Microscope(place, address, models));
}

export class Microscope {
  /**
   * @param {HTMLElement} place
   * @param {import("../state.js").Address} address
   * @param {Model[]} models
   */
  constructor(place, address, models) {
    this.place = place;
    this.address = address;
    this.models = models;
    this.model = chosenModel(models, address.text("model"));
    this.isLink = address.params.has("prompt"); // a link shows what its sender saw: the seed is in it
    this.wantsChat = address.text("mode") === "chat";
    this.tab = address.text("tab", "tokens");
    this.controls = new SamplingControls();
    this.controls.settings = settingsFrom(address, SHORT);
    this.controls.settings.max_tokens = Math.min(Number(this.controls.settings.max_tokens), 256);
    /** @type {Branch[]} */
    this.branches = [];
    this.current = 0;
    /** @type {AbortController | null} */
    this.running = null;
    this.result = h("div", { class: "stack", "aria-live": "polite" });
    this.prompt = growingText({
      label: "Prompt",
      value: address.text("prompt", "Once upon a time"),
      onsend: () => this.run(),
      oninput: () => this.keep(),
    });
    this.go = button("Generate", () => (this.running ? this.stop() : this.run()), { class: "primary" });
  }

  get isChat() {
    return this.wantsChat && this.model.can_chat;
  }

  get settings() {
    return this.controls.settings;
  }

  draw() {
    const panel = h(
      "details",
      { class: "panel", open: matchMedia("(min-width: 62rem)").matches },
      h("summary", {}, "Settings"),
      this.#choices(),
      this.controls,
    );
    this.controls.addEventListener("change", () => this.keep());
    put(
      this.place,
      h("h1", {}, "Microscope"),
      h(
        "div",
        { class: "work" },
        h(
          "div",
          { class: "stage" },
          this.prompt.field,
          h("div", { class: "row" }, this.go),
          tabBar("What to look at", TABS, this.tab, (name) => {
            this.tab = name;
            this.keep();
            this.drawResult();
          }),
          this.result,
        ),
        panel,
      ),
    );
    if (this.isLink) this.run();
  }

  #choices() {
    const box = h("div", { class: "choices" });
    const drawBox = () => {
      const mode = (/** @type {string} */ name, /** @type {boolean} */ isChat) =>
        button(
          name,
          () => {
            this.wantsChat = isChat;
            this.keep();
            drawBox();
          },
          { "aria-pressed": String(isChat === this.isChat), disabled: isChat && !this.model.can_chat },
        );
      put(
        box,
        modelPicker(this.models, {
          value: this.model.id,
          onchange: (id) => {
            this.model = chosenModel(this.models, id);
            this.keep();
            drawBox();
          },
        }),
        h("p", { class: "hint" }, modelFacts(this.model)),
        h(
          "div",
          { class: "segmented", role: "group", "aria-label": "Mode" },
          mode("Continue a text", false),
          mode("Chat", true),
        ),
      );
    };
    drawBox();
    return box;
  }

  /** @param {import("../state.js").Values} [more] */
  keep(more = {}) {
    this.address.set({
      model: this.model.id,
      mode: this.isChat ? "chat" : null,
      prompt: this.prompt.box.value,
      tab: this.tab === "tokens" ? null : this.tab,
      ...inAddress(this.settings, SHORT),
      ...more,
    });
  }

  stop() {
    this.running?.abort();
  }

  /** What the endpoints read: the prompt, and how tokens are chosen. @param {import("../sampling.js").Settings} settings */
  request(settings = this.settings) {
    const text = this.prompt.box.value;
    return {
      model: this.model.id,
      ...(this.isChat ? { messages: [{ role: "user", content: text }] } : { prompt: text }),
      ...asRequest(settings),
    };
  }

  run() {
    if (this.running || !this.prompt.box.value.trim()) return;
    this.keep();
    if (this.tab !== "tokens") return this.drawResult(true);
    return this.#work(async (signal) => {
      const found = await post("/api/trace", { ...this.request(), n_candidates: 12 }, signal);
      this.branches = [
        { name: "first text", promptIds: found.prompt_ids, ids: found.ids, steps: found.steps },
      ];
      this.current = 0;
    });
  }

  /**
   * Continue from another token than the one that was chosen.
   * @param {number} index
   * @param {import("../components/candidate-list.js").Candidate} candidate
   */
  #branch(index, candidate) {
    const from = this.branches[this.current];
    const ids = [...from.ids.slice(0, index), candidate.id];
    return this.#work(async (signal) => {
      const body = {
        model: this.model.id,
        prompt: [...from.promptIds, ...ids],
        ...asRequest(this.settings),
        n_candidates: 12,
        max_tokens: Math.max(1, Number(this.settings.max_tokens) - ids.length),
      };
      const found = await post("/api/trace", body, signal);
      const turned = { ...from.steps[index], id: candidate.id, text: candidate.text };
      this.branches.push({
        name: `${visible(candidate.text)} at ${index + 1}`,
        promptIds: from.promptIds,
        ids: [...ids, ...found.ids],
        steps: [...from.steps.slice(0, index), turned, ...found.steps],
      });
      this.current = this.branches.length - 1;
    }, index);
  }

  /**
   * Run what needs the server, with a button that stops it.
   * @param {(signal: AbortSignal) => Promise<void>} work
   * @param {number} [index] of the token to show afterwards
   */
  async #work(work, index = this.address.number("token", 0)) {
    if (this.running) return;
    this.running = new AbortController();
    this.go.textContent = "Stop";
    put(this.result, h("p", { class: "busy" }, "The model is writing …"));
    try {
      await work(this.running.signal);
      this.drawResult(false, index);
    } catch (error) {
      put(this.result, isStopped(error) ? h("p", { class: "busy" }, "Stopped.") : problem(error));
    } finally {
      this.running = null;
      this.go.textContent = "Generate";
    }
  }

  /** @param {boolean} [isNew] whether to ask the server again @param {number} [index] of the token to show */
  drawResult(isNew = false, index = 0) {
    if (this.tab === "beams") return showBeams(this, isNew);
    if (this.tab === "decoders") return showDecoders(this, isNew);
    if (!this.branches.length)
      return put(
        this.result,
        h(
          "p",
          { class: "lead" },
          "Every token is coloured by its probability. Point at one, or walk with the arrow keys, to see the tokens it was chosen from; choose another to continue from there.",
        ),
      );
    return this.#drawTokens(index);
  }

  /** @param {number} index */
  #drawTokens(index) {
    const branch = this.branches[this.current];
    const text = new TokenText();
    text.setAttribute("aria-label", "Generated tokens");
    text.tokens = branch.steps.map((step) => ({
      text: step.text,
      prob: step.candidates.find((one) => one.id === step.id)?.prob ?? 0,
    }));
    const list = new CandidateList();
    const look = (/** @type {number} */ i) => {
      text.choose(i);
      list.show(branch.steps[i] ?? null, i, branch.steps.length);
      this.keep({ token: i || null });
    };
    text.addEventListener("look", (event) => look(/** @type {CustomEvent} */ (event).detail));
    list.addEventListener("branch", (event) =>
      this.#branch(text.chosen, /** @type {CustomEvent} */ (event).detail),
    );
    put(
      this.result,
      h(
        "div",
        { class: "scope" },
        h(
          "div",
          { class: "card" },
          this.branches.length > 1 &&
            h(
              "div",
              { class: "branches", role: "group", "aria-label": "Branches" },
              this.branches.map((one, i) =>
                button(
                  one.name,
                  () => {
                    this.current = i;
                    this.drawResult(false, text.chosen);
                  },
                  { class: "small", "aria-pressed": String(i === this.current) },
                ),
              ),
            ),
          h(
            "div",
            { class: "model flow" },
            !this.isChat && h("span", { class: "prompt" }, this.prompt.box.value),
            text,
          ),
          legend(),
        ),
        h("div", { class: "card detail" }, list),
      ),
    );
    look(Math.min(Math.max(index, 0), branch.steps.length - 1));
  }
}
