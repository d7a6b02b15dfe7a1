// What several scripts of a page share.
"use strict";
const shared = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const find = (id) => document.getElementById(id);
  const make = (tag, text, cssClass) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text; // text, never markup
    if (cssClass) element.className = cssClass;
    return element;
  };
  const drawn = (tag, attributes) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const percent = (share) =>
    share === 0 ? "0%" : share === 1 ? "100%" : share > 0 && share < 0.001 ? "<0.1%" : share > 0.999 && share < 1 ? ">99.9%" : `${(100 * share).toFixed(1)}%`;

  // Texts with their shares as bars.
  const bars = (rows) => {
    const list = make("ol");
    for (const { text, share, isOurs } of rows) {
      const item = make("li", undefined, isOurs ? "taken" : "");
      const bar = drawn("svg", { class: "bar", "aria-hidden": "true" });
      bar.append(drawn("rect", { width: `${100 * Math.max(0, share)}%`, height: 10, y: 3, rx: 2, class: isOurs ? "f-val" : "f-soft" }));
      item.append(make("span", text, "model"), bar, make("span", percent(share)));
      list.append(item);
    }
    return list;
  };

  // One of several elements is chosen by pointer or arrow keys; `width` is the number of columns.
  const chooser = (items, choose, { first = 0, width = items.length, follows = false } = {}) => {
    const pick = (index) => {
      items.forEach((item, i) => {
        item.classList.toggle("chosen", i === index);
        item.setAttribute("aria-selected", String(i === index));
        item.tabIndex = i === index ? 0 : -1;
      });
      choose(index);
    };
    items.forEach((item, i) => {
      item.removeAttribute("title");
      item.tabIndex = i === first ? 0 : -1;
      item.addEventListener("click", () => { pick(i); item.focus({ preventScroll: true }); });
      item.addEventListener("focus", () => pick(i));
      if (follows) item.addEventListener("pointerenter", () => pick(i));
      item.addEventListener("keydown", (event) => {
        const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: width < items.length ? width : 1, ArrowUp: width < items.length ? -width : -1 };
        const to = event.key === "Home" ? 0 : event.key === "End" ? items.length - 1 : i + steps[event.key];
        if (!items[to]) return;
        event.preventDefault();
        items[to].focus();
      });
    });
    pick(first);
    return pick;
  };

  // A group of buttons, one of them pressed.
  const buttonGroup = (group, press) => {
    const buttons = [...group.querySelectorAll("button")];
    for (const button of buttons) {
      button.addEventListener("click", () => {
        press(button);
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      });
    }
    group.hidden = false;
  };

  return { find, make, drawn, percent, bars, chooser, buttonGroup };
})();
