// Everything on the page can be read without this script; it adds tooltips, playback and copying.
"use strict";
(() => {
  const root = document.documentElement;
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("page-data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  root.classList.add("js");

  const make = (tag, text, cssClass) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text; // text, never markup
    if (cssClass) element.className = cssClass;
    return element;
  };
  const visible = (token) =>
    token.replace(/ /g, "·").replace(/\r?\n/g, "⏎").replace(/\t/g, "⇥") || "∅";
  const percent = (share) =>
    share === 0 ? "0%" : share === 1 ? "100%" : share < 0.001 ? "<0.1%" : share > 0.999 ? ">99.9%" : `${(100 * share).toFixed(1)}%`;
  const shade = (share) => Math.min(10, Math.max(0, Math.round(10 * share)));

  // Light or dark: the system setting, until the reader chooses.
  const theme = () => {
    const button = find("theme");
    const system = window.matchMedia("(prefers-color-scheme: dark)");
    const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
    const show = () => { button.textContent = isDark() ? "Light page" : "Dark page"; };
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
      line = document.createElementNS(SVG, "line");
      line.setAttribute("class", cssClass);
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

  // A row of tokens, one of them selected by pointer or arrow keys.
  const chooser = (list, choose, first) => {
    const tokens = [...list.querySelectorAll(".tok")];
    const pick = (index) => {
      tokens.forEach((token, i) => {
        token.classList.toggle("chosen", i === index);
        token.setAttribute("aria-selected", String(i === index));
        token.tabIndex = i === index ? 0 : -1;
      });
      choose(index, tokens);
    };
    tokens.forEach((token, i) => {
      token.removeAttribute("title");
      token.tabIndex = i === Math.max(0, first) ? 0 : -1;
      token.addEventListener("pointerenter", () => pick(i));
      token.addEventListener("click", () => { pick(i); token.focus({ preventScroll: true }); });
      token.addEventListener("focus", () => pick(i));
    });
    list.addEventListener("keydown", (event) => {
      const at = tokens.indexOf(document.activeElement);
      const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: tokens.length - 1 }[event.key];
      if (to === undefined || !tokens[to]) return;
      event.preventDefault();
      tokens[to].focus();
    });
    if (first >= 0) pick(first);
    return pick;
  };

  // Shares as short bars.
  const shareList = (rows, isTaken) => {
    const list = make("ol");
    for (const [text, share] of rows) {
      const item = make("li", undefined, isTaken(text) ? "taken" : "");
      const bar = document.createElementNS(SVG, "svg");
      const filled = document.createElementNS(SVG, "rect");
      const shape = { width: `${100 * share}%`, height: 10, y: 3, rx: 2, class: isTaken(text) ? "f-val" : "f-soft" };
      for (const [name, value] of Object.entries(shape)) filled.setAttribute(name, value);
      bar.setAttribute("class", "bar");
      bar.setAttribute("aria-hidden", "true");
      bar.append(filled);
      item.append(make("span", visible(text), "model"), bar, make("span", percent(share)));
      list.append(item);
    }
    return list;
  };

  const attention = () => {
    const strip = find("strip");
    if (!strip) return;
    const { tokens, weights } = data.attention;
    const heat = find("heat");
    const pick = chooser(strip, (row, spans) => {
      spans.forEach((span, i) => {
        const weight = i <= row ? weights[row][i] : 0;
        span.classList.remove(...[...span.classList].filter((name) => /^a\d/.test(name)));
        span.classList.add(`a${shade(Math.sqrt(weight))}`);
      });
      const most = weights[row].map((weight, i) => [tokens[i], weight]).sort((a, b) => b[1] - a[1]).slice(0, 5);
      find("attention-readout").replaceChildren(make("p", `“${visible(tokens[row])}” attends to`), shareList(most, () => true));
      heat.classList.add("choosing");
      for (const group of heat.querySelectorAll("g[data-row]")) group.classList.toggle("chosen", Number(group.dataset.row) === row);
    }, tokens.length - 1);
    for (const group of heat.querySelectorAll("g[data-row]")) group.addEventListener("pointerenter", () => pick(Number(group.dataset.row)));
    heat.addEventListener("pointerleave", () => heat.classList.remove("choosing"));
    heat.classList.remove("choosing");
  };

  const coloured = () => {
    const passage = find("passage");
    if (!passage) return;
    const panel = find("alternatives");
    chooser(passage, (index) => {
      const { text, probability, alternatives } = data.coloured[index];
      const rows = alternatives.some(([other]) => other === text) ? [...alternatives] : [[text, probability], ...alternatives];
      rows.sort((a, b) => b[1] - a[1]);
      panel.replaceChildren(make("p", `It wrote “${visible(text)}”, to which it had given ${percent(probability)}:`), shareList(rows, (other) => other === text));
      panel.hidden = false;
    }, data.coloured.reduce((least, token, i, all) => (token.probability < all[least].probability ? i : least), 0)); // the greatest surprise
  };

  const filter = () => {
    const group = find("filter");
    if (!group) return;
    const buttons = [...group.querySelectorAll("button")];
    for (const button of buttons) {
      button.addEventListener("click", () => {
        find("answers").dataset.show = button.dataset.show;
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      });
    }
    group.hidden = false;
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
