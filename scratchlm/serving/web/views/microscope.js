// The microscope: how each token of an answer was chosen, what else could have come, and what follows from it.
import { isStopped, stream } from "../api.js";
import { CandidateList, probabilityOf } from "../components/candidate-list.js";
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
const TABS = { tokens: "Token by token", decoders: "Decoders", beams: "Beam search" };

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
    /** @type {(isComplete?: boolean) => void} draws the tokens that the shown branch has got since */
    this.added = () => {};
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
    if (this.running || this.prompt.isEmpty()) return;
    this.keep();
    if (this.tab !== "tokens") return this.drawResult(true);
    /** @type {Branch} */
    const first = { name: "first text", promptIds: [], ids: [], steps: [] };
    this.branches = [first];
    return this.#trace(first, this.request(), this.address.number("token", 0));
  }

  /**
   * Continue from another token than the one that was chosen.
   * @param {number} index
   * @param {import("../components/candidate-list.js").Candidate} candidate
   */
  #branch(index, candidate) {
    if (this.running) return;
    const from = this.branches[this.current];
    const turned = { ...from.steps[index], id: candidate.id, text: candidate.text };
    /** @type {Branch} */
    const branch = {
      name: `${visible(candidate.text)} at ${index + 1}`,
      promptIds: from.promptIds,
      ids: [...from.ids.slice(0, index), candidate.id],
      steps: [...from.steps.slice(0, index), turned],
    };
    this.branches.push(branch);
    const body = {
      model: this.model.id,
      prompt: [...from.promptIds, ...branch.ids],
      ...asRequest(this.settings),
      max_tokens: Math.max(1, Number(this.settings.max_tokens) - branch.ids.length),
    };
    return this.#trace(branch, body, index);
  }

  /**
   * Generate the rest of a branch and draw its tokens as they come, with a button that stops it.
   * @param {Branch} branch the last one
   * @param {Record<string, unknown>} body
   * @param {number} index of the token to show
   */
  async #trace(branch, body, index) {
    this.running = new AbortController();
    this.go.textContent = "Stop";
    this.result.setAttribute("aria-busy", "true"); // read out once, when it is complete
    this.current = this.branches.length - 1;
    this.#drawTokens(index);
    const isShown = () => this.tab === "tokens" && this.branches[this.current] === branch;
    try {
      for await (const piece of stream("/api/trace", { ...body, n_candidates: 12 }, this.running.signal)) {
        if (piece.prompt_ids && !branch.promptIds.length) branch.promptIds = piece.prompt_ids;
        if (!piece.steps) continue;
        branch.steps.push(...piece.steps);
        branch.ids.push(...piece.steps.map((/** @type {Step} */ step) => step.id));
        if (isShown()) this.added();
      }
      if (isShown()) this.added(true);
    } catch (error) {
      this.result.append(isStopped(error) ? h("p", { class: "busy" }, "Stopped.") : problem(error));
    } finally {
      this.running = null;
      this.go.textContent = "Generate";
      this.result.removeAttribute("aria-busy");
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
          "Each token is coloured by its probability. Point at one, or move with the arrow keys, to see its candidates; choose another one to continue from there.",
        ),
      );
    return this.#drawTokens(index);
  }

  /** @param {number} index */
  #drawTokens(index) {
    const branch = this.branches[this.current];
    const text = new TokenText();
    text.setAttribute("aria-label", "Generated tokens");
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
    this.added = (isComplete = false) => {
      const from = text.tokens.length;
      text.push(...branch.steps.slice(from).map((step) => ({ text: step.text, prob: probabilityOf(step) })));
      const wanted = Math.max(index, 0);
      if (from <= wanted && wanted < branch.steps.length) look(wanted);
      else if (isComplete) look(Math.min(text.chosen < 0 ? wanted : text.chosen, branch.steps.length - 1));
    };
    list.show(null, 0, 0);
    this.added(!this.running);
  }
}
