// A text box that grows with its text; Enter sends, Shift+Enter starts a new line.
import { freshId, h } from "../dom.js";

/**
 * @param {{label: string, value?: string, rows?: number, placeholder?: string, isLabelHidden?: boolean,
 *   onsend?: () => void, oninput?: () => void, hint?: string}} options
 */
export function growingText({
  label,
  value = "",
  rows = 2,
  placeholder,
  isLabelHidden,
  onsend,
  oninput,
  hint,
}) {
  const id = freshId();
  const box = h("textarea", {
    id,
    rows,
    placeholder,
    spellcheck: "false",
    "aria-describedby": hint && `${id}-hint`,
  });
  const grow = () => {
    box.style.setProperty("height", "auto");
    box.style.setProperty("height", `${Math.min(box.scrollHeight + 2, 360)}px`);
  };
  box.value = value;
  box.addEventListener("input", () => {
    box.setCustomValidity("");
    grow();
    oninput?.();
  });
  box.addEventListener("keydown", (event) => {
    const isSent = event.key === "Enter" && !event.shiftKey && !event.isComposing;
    if (!onsend || !isSent) return;
    event.preventDefault();
    onsend();
  });
  // The browser says so beside the box, also to a screen reader, until the next key.
  const isEmpty = () => {
    box.setCustomValidity(box.value.trim() ? "" : "Type a text first.");
    return !box.reportValidity();
  };
  requestAnimationFrame(grow);
  const field = h(
    "div",
    { class: "field" },
    h("label", { for: id, class: isLabelHidden ? "hidden" : "" }, label),
    box,
    hint && h("p", { class: "hint", id: `${id}-hint` }, hint),
  );
  return { field, box, grow, isEmpty };
}
