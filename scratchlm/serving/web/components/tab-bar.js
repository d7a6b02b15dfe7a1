// Tabs within a view; the arrow keys move between them.
import { button, h } from "../dom.js";

/**
 * @param {string} label
 * @param {Record<string, string>} tabs name -> title
 * @param {string} chosen
 * @param {(name: string) => void} onchoose
 */
export function tabBar(label, tabs, chosen, onchoose) {
  const names = Object.keys(tabs);
  const bar = h("div", { class: "tabs", role: "tablist", "aria-label": label });
  const choose = (/** @type {string} */ name, isFocused = false) => {
    for (const [i, one] of [...bar.children].entries()) {
      const tab = /** @type {HTMLElement} */ (one);
      tab.setAttribute("aria-selected", String(names[i] === name));
      tab.tabIndex = names[i] === name ? 0 : -1;
      if (names[i] === name && isFocused) tab.focus();
    }
    onchoose(name);
  };
  bar.append(...names.map((name) => button(tabs[name], () => choose(name), { role: "tab" })));
  bar.addEventListener("keydown", (event) => {
    const move = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    const at = [...bar.children].findIndex((one) => one === document.activeElement);
    if (!move || at < 0) return;
    event.preventDefault();
    choose(names[(at + move + names.length) % names.length], true);
  });
  choose(names.includes(chosen) ? chosen : names[0]);
  return bar;
}
