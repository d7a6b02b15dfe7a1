// The page of an inspection: choose a prediction, a token, a cell of the lens or a head.
"use strict";
(() => {
  const { find, make, percent, bars, chooser, buttonGroup } = shared;
  const { tokens, choices, lens, heads, attention } = JSON.parse(find("page-data").textContent);
  const signed = (value) => (Math.abs(value) < 0.005 ? "0.00" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`);
  const paint = (element, share, isUp = true) => {
    element.classList.remove(...[...element.classList].filter((name) => /^(a\d+|up|down)$/.test(name)));
    element.classList.add(isUp ? "up" : "down", `a${Math.min(10, Math.round(10 * Math.abs(share)))}`);
  };

  const cellsOf = (table) => {
    table.setAttribute("role", "grid");
    const cells = [...table.querySelectorAll("td")];
    for (const cell of cells) cell.setAttribute("role", "gridcell");
    return cells;
  };

  const panel = (title, rows) => {
    const box = make("div", undefined, "shares");
    box.append(make("p", title), bars(rows));
    return box;
  };

  const prediction = () => {
    const strip = [...find("saliency").querySelectorAll(".tok")];
    const cells = [...find("parts").querySelectorAll("td")];
    let current = choices[0];
    let position = -1;
    const showSaliency = () => {
      if (position < 0) return;
      find("saliency-readout").textContent = `Gradient times input of “${tokens[position].text}” for “${current.text}”: ${signed(current.saliency[position])}`;
    };
    const options = [...find("choices").children];
    chooser(options, (index) => {
      current = choices[index];
      strip.forEach((token, i) => paint(token, current.saliency[i] / current.saliency_scale, current.saliency[i] > 0));
      current.rows.flat().forEach((value, i) => {
        paint(cells[i], value / current.scale, value > 0);
        cells[i].textContent = signed(value);
      });
      for (const name of document.querySelectorAll(".explained")) name.textContent = `“${current.text}”`;
      find("above-mean").textContent = signed(current.above_mean);
      const rest = Object.entries(current.rest).map(([name, value]) => `${name} ${signed(value)}`).join("; ");
      find("parts-rest").textContent = `${rest}. With the table they add up to the difference.`;
      find("largest").replaceChildren(...current.largest.map(([name, value]) => {
        const item = make("li");
        item.append(make("span", name), make("b", signed(value)));
        return item;
      }));
      showSaliency();
    }, { width: 1 });
    const most = choices[0].saliency.map(Math.abs);
    chooser(strip, (index) => { position = index; showSaliency(); }, { first: most.indexOf(Math.max(...most)), follows: true });
  };

  const tokenDetails = () => {
    const box = find("token-panel");
    const rows = [...find("token-strip").querySelectorAll(".tok")];
    const losses = tokens.map((token) => token.loss ?? -1);
    chooser(rows, (index) => {
      const { text, id, prob, loss, rank, alternatives, nearest } = tokens[index];
      const near = nearest.map((other) => ({ text: other.text, share: other.similarity }));
      const boxes = [panel(`Most similar embeddings to “${text}” (id ${id}), by cosine:`, near)];
      if (prob !== null) {
        const expected = alternatives.map((other) => ({ text: other.text, share: other.prob, isOurs: other.id === id }));
        if (!expected.some((row) => row.isOurs)) expected.push({ text, share: prob, isOurs: true });
        boxes.unshift(panel(`“${text}” has loss ${loss.toFixed(2)} nats and rank ${(rank + 1).toLocaleString("en")}:`, expected));
      }
      box.replaceChildren(...boxes);
      box.hidden = false;
    }, { first: losses.indexOf(Math.max(...losses)), follows: true });
  };

  const lensCells = () => {
    const table = find("lens-table");
    if (!table) return;
    const cells = cellsOf(table);
    const width = tokens.length;
    chooser(cells, (index) => {
      const [row, column] = [Math.floor(index / width), index % width];
      const { prob, rank, top } = lens[row][column];
      const isLast = column === width - 1;
      const follows = isLast ? choices[0].text : tokens[column + 1].text;
      const place = row === 0 ? "the embedding" : `block ${row - 1}`;
      const rows = top.map((other, i) => ({ text: other.text, share: other.prob, isOurs: i === rank }));
      if (rank >= rows.length) rows.push({ text: follows, share: prob, isOurs: true });
      find("lens-readout").replaceChildren(make("p", `After ${place}, at “${tokens[column].text}”; ${isLast ? "the prediction" : "followed by"}: “${follows}”`), bars(rows));
      find("lens-readout").hidden = false;
    }, { first: cells.length - 1, width, follows: true });
    const box = table.parentElement;
    box.scrollLeft = box.scrollWidth; // the prediction is in the last column
  };

  const attentionHeads = () => {
    const table = find("heads");
    const cells = cellsOf(table);
    const width = attention[0].length;
    const flat = attention.flat(); // [head][query][key] in thousandths
    const strip = [...find("attention-strip").querySelectorAll(".tok")];
    const map = find("head-map");
    const rows = [...map.querySelectorAll("g[data-row]")];
    let [head, query] = [cells.findIndex((cell) => cell.classList.contains("chosen")), tokens.length - 1];
    const showQuery = () => {
      const weights = flat[head][query];
      strip.forEach((token, i) => paint(token, Math.sqrt((weights[i] ?? 0) / 1000)));
      const most = weights.map((weight, i) => ({ text: tokens[i].text, share: weight / 1000, isOurs: true })).sort((a, b) => b.share - a.share).slice(0, 5);
      find("head-readout").replaceChildren(make("p", `“${tokens[query].text}” attends to`), bars(most));
      rows.forEach((row, i) => row.classList.toggle("chosen", i === query));
    };
    chooser(cells, (index) => {
      head = index;
      find("head-title").textContent = `Block ${Math.floor(index / width)}, head ${index % width}`;
      rows.forEach((row, i) => [...row.querySelectorAll("rect")].forEach((cell, j) => paint(cell, Math.sqrt(flat[index][i][j] / 1000))));
      showQuery();
    }, { first: Math.max(0, head), width });
    chooser(strip, (index) => { query = index; showQuery(); }, { first: query, follows: true });

    buttonGroup(find("measures"), (button) => {
      const values = heads[button.dataset.measure];
      cells.forEach((cell, i) => { paint(cell, values[i]); cell.textContent = `${Math.round(100 * values[i])}%`; });
      find("measure").textContent = button.textContent;
    });
  };

  for (const part of [prediction, tokenDetails, lensCells, attentionHeads]) part();
})();
