// Ask before something that costs or cannot be undone.
import { button, h } from "../dom.js";

/**
 * @param {{title: string, text: string, action: string, fields?: HTMLElement[]}} options `action` names the button
 * @returns {Promise<boolean>} whether the reader wants it
 */
export function confirmed({ title, text, action, fields = [] }) {
  return new Promise((resolve) => {
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", {}, title),
      h("p", {}, text),
      fields,
      h(
        "div",
        { class: "row" },
        h("button", { class: "primary", value: "yes" }, action),
        button("Cancel", () => dialog.close()),
      ),
    );
    const dialog = h("dialog", { "aria-label": title }, form);
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
