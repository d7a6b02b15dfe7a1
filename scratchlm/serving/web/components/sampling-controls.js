// Sliders for the settings of a choice among tokens; each says in one line what it does.
import { button, freshId, h, put } from "../dom.js";
import { PRESETS, SETTINGS, preset } from "../sampling.js";

/** Sends `change` when the reader has changed a setting. */
export class SamplingControls extends HTMLElement {
  /** @type {import("../sampling.js").Settings} */
  settings = {};
  /** @type {string[]} settings that are of no use here */
  without = [];

  connectedCallback() {
    this.draw();
  }

  draw() {
    const shown = SETTINGS.filter((one) => !this.without.includes(one.name));
    put(
      this,
      h(
        "div",
        { class: "presets", role: "group", "aria-label": "Presets" },
        Object.entries(PRESETS).map(([name, one]) =>
          button(name, () => this.#change(preset(name, this.settings)), { class: "small", title: one.hint }),
        ),
      ),
      shown.filter((one) => !one.rare).map((one) => this.#slider(one)),
      h(
        "details",
        { class: "more" },
        h("summary", {}, "More settings"),
        shown.filter((one) => one.rare).map((one) => this.#slider(one)),
        this.#stop(),
      ),
    );
  }

  /** @param {import("../sampling.js").Setting} one */
  #slider(one) {
    const id = freshId();
    const { min, max, step } = one;
    const value = this.settings[one.name] ?? one.off ?? min;
    const shared = { min, max, step, value, "aria-describedby": `${id}-hint` };
    const slider = h("input", {
      type: "range",
      ...shared,
      "aria-label": `${one.label}, slider`,
      tabindex: -1,
    });
    const box = h("input", { type: "number", id, ...shared });
    const take = (/** @type {HTMLInputElement} */ from) => {
      if (from.value === "" || !Number.isFinite(from.valueAsNumber)) return;
      const chosen = Math.min(Math.max(from.valueAsNumber, min), max);
      this.settings = { ...this.settings, [one.name]: chosen };
      slider.value = String(chosen);
      if (from !== box) box.value = String(chosen);
      this.dispatchEvent(new Event("change"));
    };
    slider.addEventListener("input", () => take(slider));
    box.addEventListener("input", () => take(box));
    box.addEventListener("blur", () => {
      box.value = slider.value;
    });
    return h(
      "div",
      { class: "setting" },
      h("label", { for: id }, one.label),
      box,
      slider,
      h("p", { class: "hint", id: `${id}-hint` }, one.hint),
    );
  }

  #stop() {
    const id = freshId();
    const box = h("input", { type: "text", id, value: String(this.settings.stop ?? ""), maxlength: 200 });
    box.addEventListener("input", () => {
      this.settings = { ...this.settings, stop: box.value };
      this.dispatchEvent(new Event("change"));
    });
    return h(
      "div",
      { class: "setting wide" },
      h("label", { for: id }, "Stop text"),
      box,
      h("p", { class: "hint" }, "The text ends before this one."),
    );
  }

  /** @param {import("../sampling.js").Settings} settings */
  #change(settings) {
    const isOpen = this.querySelector("details")?.open ?? false;
    this.settings = settings;
    this.draw();
    if (isOpen) /** @type {HTMLDetailsElement} */ (this.querySelector("details")).open = true;
    this.dispatchEvent(new Event("change"));
  }
}

customElements.define("sampling-controls", SamplingControls);
