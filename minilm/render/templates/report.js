// The page's behaviour: theme, convention switch, values under the pointer, the list of tensors. Data is
// never HTML here: it becomes textContent.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const element = (id) => document.getElementById(id);
  const grouped = (number) => number.toLocaleString("en-US");

  function theme() {
    const names = ["system", "light", "dark"];
    const button = element("theme");
    let chosen = "system";
    try { chosen = localStorage.getItem("minilm-theme") || chosen; } catch { /* a page without storage */ }
    const show = () => {
      if (chosen === "system") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = chosen;
      button.textContent = `Theme: ${chosen}`;
    };
    button.addEventListener("click", () => {
      chosen = names[(names.indexOf(chosen) + 1) % names.length];
      try { localStorage.setItem("minilm-theme", chosen); } catch { /* kept for this view only */ }
      show();
    });
    if (!names.includes(chosen)) chosen = "system";
    show();
  }

  function conventions() {
    for (const radio of document.getElementsByName("convention")) {
      radio.addEventListener("change", () => {
        element("count").textContent = radio.dataset.count;
        element("short").textContent = radio.dataset.short;
        element("meaning").textContent = radio.dataset.meaning;
      });
      if (radio.checked) radio.dispatchEvent(new Event("change")); // restored by the browser
    }
  }

  function copying() {
    for (const button of document.querySelectorAll(".copy")) {
      button.addEventListener("click", async () => {
        const code = button.parentElement.querySelector("code");
        try {
          await navigator.clipboard.writeText(code.textContent);
          button.textContent = "Copied";
        } catch { // no permission: select it, so that the next key press copies
          getSelection().selectAllChildren(code);
          button.textContent = "Selected";
        }
        setTimeout(() => { button.textContent = "Copy"; }, 1500);
      });
    }
  }

  // The values under the pointer: a cursor in the plot, and a line above it.
  function curves(charts) {
    document.querySelectorAll(".plot:not(.still)").forEach((figure, number) => {
      const { axis, end, lines } = charts[number];
      const area = figure.querySelector(".plot-area"), cursor = figure.querySelector(".cursor");
      const output = figure.querySelector("output");
      const nearest = (line, x) => line.x.reduce((best, each, index) => (Math.abs(each - x) < Math.abs(line.x[best] - x) ? index : best), 0);
      const digits = (value) => value.toLocaleString("en-US", { maximumSignificantDigits: 5 });
      area.addEventListener("pointermove", (event) => {
        const box = area.getBoundingClientRect();
        const x = end * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
        const at = lines[0].x[nearest(lines[0], x)];
        const values = lines.map((line) => {
          const index = nearest(line, at);
          const where = line.x[index] === at ? "" : ` (${axis} ${digits(line.x[index])})`;
          return `${lines.length > 1 ? line.name + " " : ""}${digits(line.y[index])}${where}`;
        });
        output.textContent = `${axis} ${digits(at)}: ${values.join(", ")}`;
        cursor.style.left = `${(100 * at) / end}%`;
        cursor.hidden = false;
      });
      area.addEventListener("pointerleave", () => { cursor.hidden = true; output.textContent = ""; });
    });
  }

  function tensorTable({ names: parts, endings, kinds, rows }) {
    const PAGE = 100; // rows in the document at any time, however many tensors there are
    const names = [];
    for (let index = 0; index < parts.length; index += 2) names.push((names.at(-1) || "").slice(0, parts[index]) + endings[parts[index + 1]]);
    const collator = new Intl.Collator("en", { numeric: true });
    const [SHAPE, DTYPE, COUNT, COMPONENT] = [0, 1, 2, 3];
    const kind = (index) => kinds[rows[index]];
    const words = rows.map((_, index) =>
      [names[index], kind(index)[SHAPE], kind(index)[DTYPE], kind(index)[COMPONENT]].join("\n").toLowerCase());
    const counts = kinds.map((each) => BigInt(each[COUNT].replaceAll(",", "")));
    const by = {
      name: (a, b) => collator.compare(names[a], names[b]),
      shape: (a, b) => collator.compare(kind(a)[SHAPE], kind(b)[SHAPE]),
      dtype: (a, b) => collator.compare(kind(a)[DTYPE], kind(b)[DTYPE]),
      count: (a, b) => Number(counts[rows[a]] - counts[rows[b]]),
      component: (a, b) => collator.compare(kind(a)[COMPONENT], kind(b)[COMPONENT]),
    };
    let matching = rows.map((_, index) => index), first = 0, key = null, direction = 1;

    const select = () => {
      const wanted = element("search").value.toLowerCase().split(/\s+/).filter(Boolean);
      matching = [];
      for (let index = 0; index < rows.length; index++) if (wanted.every((word) => words[index].includes(word))) matching.push(index);
      if (key) matching.sort((a, b) => direction * by[key](a, b) || a - b);
      first = 0;
      draw();
    };
    const cell = (tag, text, title, style) => {
      const node = document.createElement(tag);
      node.textContent = text;
      if (title) node.dataset.title = title;
      if (style) node.className = style;
      if (tag === "th") node.scope = "row";
      return node;
    };
    const draw = () => {
      const window = matching.slice(first, first + PAGE);
      document.querySelector("#tensor-table tbody").replaceChildren(...window.map((index) => {
        const [shape, dtype, count, component] = kind(index);
        const row = document.createElement("tr");
        row.append(cell("th", names[index]), cell("td", shape, "shape", "number"), cell("td", dtype, "dtype"),
          cell("td", count, "elements", "number"), cell("td", component, "component"));
        return row;
      }));
      const sum = matching.reduce((all, index) => all + counts[rows[index]], 0n);
      element("matches").textContent = `${grouped(matching.length)} of ${grouped(rows.length)} tensors, ${grouped(sum)} elements`;
      element("range").textContent = matching.length ? `${grouped(first + 1)} to ${grouped(first + window.length)} of ${grouped(matching.length)}` : "none";
      element("previous").disabled = first === 0;
      element("next").disabled = first + PAGE >= matching.length;
      document.querySelector(".pager").hidden = rows.length <= PAGE;
    };
    for (const header of document.querySelectorAll("#tensor-table thead th")) {
      header.querySelector("button").addEventListener("click", () => {
        direction = key === header.dataset.key ? -direction : header.dataset.key === "count" ? -1 : 1;
        key = header.dataset.key;
        for (const other of document.querySelectorAll("#tensor-table thead th")) other.removeAttribute("aria-sort");
        header.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        select();
      });
    }
    element("search").addEventListener("input", select);
    element("previous").addEventListener("click", () => { first = Math.max(0, first - PAGE); draw(); });
    element("next").addEventListener("click", () => { first += PAGE; draw(); });
    select();
  }

  theme();
  conventions();
  copying();
  tensorTable(data.tensors);
  curves(data.curves);
  document.documentElement.dataset.ready = "yes";
})();
