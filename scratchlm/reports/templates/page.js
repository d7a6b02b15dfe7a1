// Everything on the page can be read without this script; it adds tooltips, playback and copying.
"use strict";
(() => {
  const root = document.documentElement;
  const { find, make, drawn, percent, bars, chooser, buttonGroup } = shared;
  const data = JSON.parse(find("page-data").textContent);
  root.classList.add("js");

  const visible = (token) =>
    token.replace(/ /g, "·").replace(/\r?\n/g, "⏎").replace(/\t/g, "⇥") || "∅";
  const shade = (share) => Math.min(10, Math.max(0, Math.round(10 * share)));

  // Light or dark: the system setting, until the reader chooses.
  const theme = () => {
    const button = find("theme");
    const system = window.matchMedia("(prefers-color-scheme: dark)");
    const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
    const show = () => { button.textContent = isDark() ? "Light mode" : "Dark mode"; };
    try { const kept = localStorage.getItem("scratchlm-theme"); if (kept) root.dataset.theme = kept; } catch { /* private window */ }
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try { localStorage.setItem("scratchlm-theme", root.dataset.theme); } catch { /* private window */ }
      show();
    });
    system.addEventListener("change", show);
    button.hidden = false;
    show();
  };

  // Curves: a line at the nearest recorded step, and its values as text.
  const nearest = (points, step) =>
    points.reduce((best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best), points[0]);
  const verticalLine = (svg, step, cssClass) => {
    let line = svg.querySelector(`.${cssClass}`);
    if (!line) {
      line = drawn("line", { class: cssClass });
      svg.append(line);
    }
    const { left, right, top, bottom, min, max } = Object.fromEntries(Object.entries(svg.dataset).map(([k, v]) => [k, Number(v)]));
    const x = left + ((step - min) / (max - min)) * (right - left);
    const isInside = x >= left - 1 && x <= right + 1;
    for (const [name, value] of Object.entries({ x1: x, x2: x, y1: top, y2: bottom })) line.setAttribute(name, value);
    line.style.display = isInside ? "" : "none";
  };
  const curves = () => {
    for (const plot of document.querySelectorAll("[data-plot]")) {
      const points = data.plots[plot.dataset.plot] || [];
      const readout = document.querySelector(`[data-readout="${plot.dataset.plot}"]`);
      if (!points.length) continue;
      readout.textContent = points[points.length - 1][1];
      readout.hidden = false;
      plot.addEventListener("pointermove", (event) => {
        const svg = event.target.closest("svg");
        if (!svg) return;
        const box = svg.getBoundingClientRect();
        const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
        const { left, right, min, max } = svg.dataset;
        const step = Number(min) + ((x - left) / (right - left)) * (max - min);
        const point = nearest(points, step);
        verticalLine(svg, point[0], "hair");
        readout.textContent = point[1];
      });
      plot.addEventListener("pointerleave", () => {
        for (const line of plot.querySelectorAll(".hair")) line.remove();
        readout.textContent = points[points.length - 1][1];
      });
    }
  };

  // Samples during training: one step at a time, marked on the loss curve above.
  const samples = () => {
    const list = find("samples");
    const player = find("player");
    if (!list || list.children.length < 2) return;
    const [slider, play, all] = [find("moment"), find("play"), find("all")];
    const items = [...list.children];
    let timer = null;
    const show = () => {
      const index = Number(slider.value);
      items.forEach((item, i) => item.classList.toggle("current", i === index));
      const step = items[index].dataset.step;
      slider.setAttribute("aria-valuetext", `step ${step}`);
      for (const svg of document.querySelectorAll('[data-plot="pretrain"] svg')) verticalLine(svg, Number(step), "mark");
    };
    const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
    play.addEventListener("click", () => {
      if (timer) return stop();
      if (Number(slider.value) === items.length - 1) slider.value = 0;
      list.classList.add("one");
      all.setAttribute("aria-pressed", "false");
      play.textContent = "Pause";
      show();
      timer = setInterval(() => {
        slider.value = Number(slider.value) + 1;
        show();
        if (Number(slider.value) === items.length - 1) stop();
      }, 1400);
    });
    slider.addEventListener("input", () => { stop(); show(); });
    all.addEventListener("click", () => {
      stop();
      const isOne = list.classList.toggle("one");
      all.setAttribute("aria-pressed", String(!isOne));
    });
    player.hidden = false;
    list.classList.add("one");
    items[items.length - 1].classList.add("current");
  };

  const attention = () => {
    const strip = find("strip");
    if (!strip) return;
    const { tokens, weights } = data.attention;
    const heat = find("heat");
    const spans = [...strip.querySelectorAll(".tok")];
    const pick = chooser(spans, (row) => {
      spans.forEach((span, i) => {
        const weight = i <= row ? weights[row][i] : 0;
        span.classList.remove(...[...span.classList].filter((name) => /^a\d/.test(name)));
        span.classList.add(`a${shade(Math.sqrt(weight))}`);
      });
      const most = weights[row].map((share, i) => ({ text: visible(tokens[i]), share, isOurs: true })).sort((a, b) => b.share - a.share).slice(0, 5);
      find("attention-readout").replaceChildren(make("p", `“${visible(tokens[row])}” attends to`), bars(most));
      heat.classList.add("choosing");
      for (const group of heat.querySelectorAll("g[data-row]")) group.classList.toggle("chosen", Number(group.dataset.row) === row);
    }, { first: tokens.length - 1, follows: true });
    for (const group of heat.querySelectorAll("g[data-row]")) group.addEventListener("pointerenter", () => pick(Number(group.dataset.row)));
    heat.addEventListener("pointerleave", () => heat.classList.remove("choosing"));
    heat.classList.remove("choosing");
  };

  const coloured = () => {
    const passage = find("passage");
    if (!passage) return;
    const panel = find("alternatives");
    const first = data.coloured.reduce((least, token, i, all) => (token.probability < all[least].probability ? i : least), 0);
    chooser([...passage.querySelectorAll(".tok")], (index) => {
      const { text, probability, alternatives } = data.coloured[index];
      const rows = alternatives.some(([other]) => other === text) ? [...alternatives] : [[text, probability], ...alternatives];
      const shares = rows.map(([other, share]) => ({ text: visible(other), share, isOurs: other === text }));
      shares.sort((a, b) => b.share - a.share);
      panel.replaceChildren(make("p", `The model chose “${visible(text)}” with a probability of ${percent(probability)}:`), bars(shares));
      panel.hidden = false;
    }, { first, follows: true }); // the least likely token
  };

  const filter = () => {
    const group = find("filter");
    if (group) buttonGroup(group, (button) => { find("answers").dataset.show = button.dataset.show; });
  };

  // Copying: without a clipboard the command is selected, ready for Ctrl-C.
  const copying = () => {
    for (const button of document.querySelectorAll(".copy")) {
      const code = button.parentElement.querySelector("code");
      button.hidden = false;
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(code.textContent);
          button.textContent = "Copied";
        } catch {
          window.getSelection().selectAllChildren(code);
          button.textContent = "Selected";
        }
        setTimeout(() => { button.textContent = "Copy"; }, 1600);
      });
    }
  };

  for (const part of [theme, curves, samples, attention, coloured, filter, copying]) part();
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
})();
