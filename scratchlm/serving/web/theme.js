// Light or dark: the system's setting, until the reader chooses. Loaded before the page is drawn.
"use strict";
(() => {
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const changed = () => document.dispatchEvent(new Event("themechange"));

  try {
    const kept = localStorage.getItem("scratchlm-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch {
    /* a private window keeps nothing */
  }

  document.addEventListener("DOMContentLoaded", () => {
    const button = /** @type {HTMLButtonElement} */ (document.getElementById("theme"));
    const show = () => {
      button.textContent = isDark() ? "Light mode" : "Dark mode";
    };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try {
        localStorage.setItem("scratchlm-theme", root.dataset.theme);
      } catch {
        /* see above */
      }
      show();
      changed();
    });
    system.addEventListener("change", () => {
      show();
      changed();
    });
    show();
  });
})();
