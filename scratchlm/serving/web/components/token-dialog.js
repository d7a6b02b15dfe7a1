// Ask for the token of a server that can be reached from other machines.
import { h } from "../dom.js";

/**
 * @param {boolean} wasWrong whether the last token was refused
 * @returns {Promise<string>}
 */
export function askForToken(wasWrong) {
  return new Promise((resolve) => {
    const input = h("input", { type: "password", autocomplete: "current-password", required: true });
    const form = h(
      "form",
      { method: "dialog" },
      h(
        "label",
        { class: "field" },
        wasWrong ? "That token was refused. Server token" : "Server token",
        input,
      ),
      h(
        "p",
        { class: "hint" },
        "The value of SCRATCHLM_TOKEN or of --token-file. It is kept until you close this tab.",
      ),
      h("button", { class: "primary" }, "Continue"),
    );
    const dialog = h(
      "dialog",
      { "aria-label": "Server token", oncancel: (/** @type {Event} */ e) => e.preventDefault() },
      form,
    );
    form.addEventListener("submit", () => {
      dialog.remove();
      resolve(input.value.trim());
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
