// Attention and weight heat maps on canvases: of the chosen layer, head, matrix and token.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent).maps;
  if (!data) return;
  const element = (id) => document.getElementById(id);
  const most = data.levels.length - 1;
  const level = (letter) => data.levels.indexOf(letter) / most;
  const digits = (value) => value.toLocaleString("en-US", { maximumSignificantDigits: 3 });
  const fill = (select, names) => {
    const before = select.options.length ? select.value : null;
    select.replaceChildren(...names.map(([value, text]) => new Option(text, value)));
    if (names.some(([value]) => String(value) === before)) select.value = before;
    select.parentElement.hidden = names.length < 2;
  };
  // Cells of 0 to 1 in the accent's colour, which is another in the dark.
  const paint = (canvas, columns, rows, cell) => {
    [canvas.width, canvas.height] = [columns, rows];
    const context = canvas.getContext("2d");
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        context.globalAlpha = cell(row, column);
        if (context.globalAlpha > 0) context.fillRect(column, row, 1, 1);
      }
    }
  };
  const under = (event, columns, rows) => {
    const box = event.currentTarget.getBoundingClientRect();
    const at = (part, whole, count) => Math.max(0, Math.min(count - 1, Math.floor((part / whole) * count)));
    return [at(event.clientY - box.top, box.height, rows), at(event.clientX - box.left, box.width, columns)];
  };
  const drawings = [];

  function attention({ tokens, layers, maps }) {
    const [layer, head, slider] = ["layer", "head", "token"].map((name) => element(`attention-${name}`));
    const canvas = element("attention-map"), detail = element("attention-detail");
    fill(layer, layers.map((number, index) => [index, number]));
    fill(head, maps[0].map((_, index) => [index, index]));
    const spans = tokens.map((text, number) => {
      const span = document.createElement("span");
      span.textContent = text;
      span.addEventListener("click", () => { slider.value = number; draw(); });
      return span;
    });
    element("attention-tokens").replaceChildren(...spans);
    const share = (row, column) => (column > row ? 0 : level(maps[layer.value][head.value][(row * (row + 1)) / 2 + column]));
    const draw = () => {
      const chosen = Number(slider.value);
      paint(canvas, tokens.length, tokens.length, share);
      const context = canvas.getContext("2d");
      context.globalAlpha = 0.12;
      context.fillRect(0, chosen, tokens.length, 1);
      let largest = 0;
      spans.forEach((span, number) => {
        const strength = share(chosen, number);
        if (strength > share(chosen, largest)) largest = number;
        span.style.setProperty("--share", strength.toFixed(3));
        span.className = number > chosen ? "later" : number === chosen ? "chosen" : "";
        if (strength > 0.6) span.classList.add("bright");
      });
      slider.setAttribute("aria-valuetext", `${chosen + 1}: ${tokens[chosen]}`);
      detail.textContent = `Token ${chosen + 1}, ${tokens[chosen]}, attends most to token ${largest + 1}, ${tokens[largest]}: ${digits(100 * share(chosen, largest) ** 2)}%.`;
    };
    for (const control of [layer, head, slider]) control.addEventListener("input", draw);
    canvas.addEventListener("pointerdown", (event) => {
      [slider.value] = under(event, tokens.length, tokens.length);
      draw();
    });
    drawings.push(draw);
  }

  function weights(every) {
    const [layer, matrix, head] = ["layer", "matrix", "head"].map((name) => element(`weights-${name}`));
    const canvas = element("weights-map"), detail = element("weights-detail");
    const names = [...new Set(every.map((each) => each.layer))];
    fill(layer, names.map((name) => [name, name || "none"]));
    let map, first, rows, columns;
    const cell = (row, column) => {
      const [down, right] = map.across ? [0, first] : [first, 0];
      return level(map.cells[(row + down) * map.columns + column + right]);
    };
    const describe = (text) => {
      const which = head.value && head.value !== "all" ? `, head ${head.value}` : "";
      detail.textContent = `${map.matrix}, ${map.shape.join(" × ")}${which}; the fullest colour is ${map.shown}. ${text}`;
    };
    const draw = () => {
      fill(matrix, every.filter((each) => each.layer === layer.value).map((each) => [each.matrix, each.matrix]));
      map = every.find((each) => each.layer === layer.value && each.matrix === matrix.value);
      fill(head, map.heads > 1 ? [["all", "all"], ...Array.from({ length: map.heads }, (_, number) => [number, number])] : []);
      [rows, columns, first] = [map.rows, map.columns, 0];
      if (map.heads > 1 && head.value !== "all") {
        const each = (map.across ? columns : rows) / map.heads;
        first = each * Number(head.value);
        if (map.across) columns = each; else rows = each;
      }
      paint(canvas, columns, rows, cell);
      canvas.style.aspectRatio = `${columns} / ${Math.max(rows, columns / 4)}`;
      describe("");
    };
    for (const control of [layer, matrix, head]) control.addEventListener("input", draw);
    canvas.addEventListener("pointermove", (event) => {
      const [row, column] = under(event, columns, rows);
      const [down, right] = map.across ? [0, first] : [first, 0];
      const from = (number, count, length) => `${Math.floor((number * length) / count)} to ${Math.floor(((number + 1) * length) / count) - 1}`;
      describe(`Rows ${from(row + down, map.rows, map.shape[0])}, columns ${from(column + right, map.columns, map.shape[1])}: ${digits(cell(row, column) * map.top)}.`);
    });
    canvas.addEventListener("pointerleave", () => describe(""));
    drawings.push(draw);
  }

  if (data.attention) attention(data.attention);
  if (data.weights.length) weights(data.weights);
  const draw = () => drawings.forEach((each) => each());
  for (const choices of document.querySelectorAll(".choices")) choices.hidden = false;
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  draw();
})();
