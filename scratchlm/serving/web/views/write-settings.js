// What the reader sets for writing, besides how tokens are chosen: models, mode, number of answers, system prompt.
import { growingText } from "../components/growing-text.js";
import { chosenModel, modelFacts, modelPicker } from "../components/model-picker.js";
import { button, h, put } from "../dom.js";

/** @param {import("./write.js").WriteView} view */
export function settingsOf(view) {
  const box = h("div", { class: "choices" });
  const redraw = () => {
    view.keep();
    view.drawThread();
    drawBox();
  };
  const drawBox = () => {
    const canTalk = view.model.can_chat && (view.other?.can_chat ?? true);
    const mode = (/** @type {string} */ name, /** @type {boolean} */ isText) =>
      button(
        name,
        () => {
          view.wantsText = isText;
          view.clear();
          redraw();
        },
        { "aria-pressed": String(isText === !view.isChat), disabled: !isText && !canTalk },
      );
    const system = growingText({
      label: "System prompt",
      value: view.system,
      rows: 2,
      placeholder: "none",
      oninput: () => {
        view.system = system.box.value;
        view.keep();
      },
      hint: "Instructions that precede the conversation.",
    });
    put(
      box,
      modelPicker(view.models, {
        value: view.model.id,
        onchange: (id) => {
          view.model = chosenModel(view.models, id);
          redraw();
        },
      }),
      h("p", { class: "hint" }, modelFacts(view.model)),
      h(
        "div",
        { class: "segmented", role: "group", "aria-label": "Mode" },
        mode("Chat", false),
        mode("Continue a text", true),
      ),
      !canTalk &&
        h("p", { class: "hint" }, "This model was not fine-tuned for chat; it continues text."),
      view.isChat &&
        !view.remembers &&
        h(
          "p",
          { class: "hint" },
          "This assistant was trained on single questions, so it does not see earlier ones.",
        ),
      modelPicker(
        view.models.filter((one) => one !== view.model),
        {
          label: "Compare with",
          value: view.other?.id ?? "",
          none: "no other model",
          onchange: (id) => {
            view.other = view.models.find((one) => one.id === id) ?? null;
            redraw();
          },
        },
      ),
      countOf(view, redraw),
      h(
        "label",
        { class: "check" },
        h("input", {
          type: "checkbox",
          checked: view.isColoured,
          onchange: (/** @type {any} */ event) => {
            view.isColoured = event.target.checked;
            redraw();
          },
        }),
        "Colour by probability",
      ),
      view.isChat && system.field,
    );
  };
  drawBox();
  return box;
}

/** @param {import("./write.js").WriteView} view @param {() => void} redraw */
function countOf(view, redraw) {
  return h(
    "div",
    { class: "segmented", role: "group", "aria-label": "Answers" },
    h("span", {}, "Answers"),
    [1, 2, 3, 4].map((n) =>
      button(
        String(n),
        () => {
          view.nAnswers = n;
          redraw();
        },
        { "aria-pressed": String(n === view.nAnswers), "aria-label": `${n} at once` },
      ),
    ),
  );
}
