// The page's behaviour: theme, convention switch, charts, the list of tensors. Data is never HTML here:
// it becomes textContent, or text for plotly with & < > as entities, which plotly shows as characters.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const element = (id) => document.getElementById(id);
  const inert = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const cut = (text, length) => (text.length > length ? text.slice(0, length - 1) + "…" : text);
  const grouped = (number) => number.toLocaleString("en-US");

  // Okabe and Ito's palette, which colour-blind people tell apart; the same in light and dark.
  const COLOURS = {
    embedding: "#0072b2", attention: "#e69f00", "feed-forward": "#009e73", experts: "#d55e00",
    head: "#cc79a7", norm: "#56b4e9", other: "#8b9096",
  };
  const TEXT = { embedding: "#ffffff" }; // black on all others
  const CLEAR = "rgba(0,0,0,0)";
  const CONFIG = { displayModeBar: false, responsive: true, doubleClick: false, scrollZoom: false };
  const FONT = { family: "system-ui, sans-serif", size: 13 };
  const HOVER = { bgcolor: "#1b1d20", bordercolor: "#5c6067", font: { family: "system-ui, sans-serif", size: 13, color: "#ffffff" }, align: "left" };
  const layout = (more) => ({ paper_bgcolor: CLEAR, plot_bgcolor: CLEAR, font: FONT, hoverlabel: HOVER, dragmode: false, ...more });

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

  function treemap(boxes) {
    if (!boxes.length) { element("treemap").closest("figure").hidden = true; return; }
    const groups = Object.keys(COLOURS).filter((name) => boxes.some((box) => box.parent && box.group === name));
    for (const name of groups) {
      const item = document.createElement("li");
      const swatch = document.createElement("i");
      swatch.style.background = COLOURS[name];
      item.append(swatch, name);
      element("legend").append(item);
    }
    const percent = (box) => `${(100 * box.share).toFixed(2)}%`;
    const trace = {
      type: "treemap", branchvalues: "total", maxdepth: 2,
      ids: boxes.map((box) => box.id),
      parents: boxes.map((box) => box.parent),
      labels: boxes.map((box) => inert(cut(box.label, 60))),
      values: boxes.map((box) => box.count),
      text: boxes.map((box) => (box.parent ? `${grouped(box.count)}<br>${percent(box)}` : "")),
      hovertext: boxes.map((box) => `${inert(cut(box.label, 120))}<br>${grouped(box.count)} parameters, ${percent(box)}` + (box.detail ? `<br>${inert(cut(box.detail, 120))}` : "")),
      hoverinfo: "text", textinfo: "label+text",
      // The page shows through between components, whichever theme it has; their tensors have a line.
      marker: { colors: boxes.map((box) => (box.parent ? COLOURS[box.group] : CLEAR)), line: { width: 1, color: "rgba(255,255,255,0.6)" }, pad: { t: 24, l: 0, r: 0, b: 0 }, cornerradius: 2 },
      textfont: { size: 13, color: boxes.map((box) => (box.parent ? TEXT[box.group] || "#000000" : "#7a7f86")) },
      pathbar: { visible: false }, tiling: { packing: "squarify", pad: 3 },
    };
    Plotly.newPlot("treemap", [trace], layout({ margin: { l: 0, r: 0, t: 0, b: 0 }, uniformtext: { minsize: 9, mode: "hide" } }), CONFIG);
    // What a click on a box does, for the keyboard; and the way back.
    const parents = new Set(boxes.map((box) => box.parent));
    for (const box of boxes.filter((each) => parents.has(each.id))) {
      element("inside").append(new Option(box.parent ? box.label : "all components", box.id));
    }
    element("inside").addEventListener("change", () => Plotly.restyle("treemap", { level: element("inside").value }));
    element("treemap").on("plotly_treemapclick", (event) => {
      if (!parents.has(event.nextLevel)) return false; // a box without boxes stays as it is
      element("inside").value = event.nextLevel;
    });
  }

  function heatMap(map) {
    if (!map) return;
    const numbers = (list) => list.map((_, index) => index);
    const longest = Math.max(...map.matrices.map((name) => Math.min(name.length, 34)));
    const height = Math.max(220, Math.min(760, 60 + longest * 6 + map.layers.length * 18));
    element("heat-map").style.height = `${height}px`;
    const logs = map.counts.map((row) => row.map((count) => (count ? Math.log10(count) : null)));
    let low = Infinity, high = -Infinity;
    for (const row of logs) for (const value of row) if (value !== null) { low = Math.min(low, value); high = Math.max(high, value); }
    const powers = [];
    for (let power = Math.ceil(low); power <= Math.floor(high); power++) powers.push(power);
    const ticks = powers.length > 1 ? powers : [low, high];
    const short = new Intl.NumberFormat("en-US", { notation: "compact" });
    const every = Math.ceil(map.layers.length / 40);
    const rows = numbers(map.layers).filter((index) => index % every === 0);
    const narrow = element("heat-map").clientWidth < 500;
    const trace = {
      type: "heatmap", z: logs, x: numbers(map.matrices), y: numbers(map.layers), xgap: 1, ygap: map.layers.length > 100 ? 0 : 1,
      colorscale: "Cividis", hoverongaps: false, hoverinfo: "text",
      text: map.details.map((row, y) => row.map((detail, x) => `layer ${inert(cut(map.layers[y], 60))}, ${inert(cut(map.matrices[x], 80))}<br>${inert(detail)}`)),
      colorbar: { thickness: 10, outlinewidth: 0, tickvals: ticks, ticktext: ticks.map((power) => short.format(10 ** power)), tickfont: { size: 12 }, title: { text: narrow ? "" : "elements", side: "right", font: { size: 12 } } },
    };
    const axis = { fixedrange: true, showgrid: false, zeroline: false, tickfont: { size: narrow ? 10 : 12 }, automargin: true };
    Plotly.newPlot("heat-map", [trace], layout({
      margin: { l: narrow ? 30 : 100, r: 10, t: 10, b: 40 },
      xaxis: { ...axis, tickvals: numbers(map.matrices), ticktext: map.matrices.map((name) => inert(cut(name, 34))), tickangle: narrow ? -90 : -40, ticklabeloverflow: "allow" },
      yaxis: { ...axis, tickvals: rows, ticktext: rows.map((index) => inert(cut(map.layers[index], 24))), autorange: "reversed", title: { text: narrow ? "" : "layer", font: { size: 12 } } },
    }), CONFIG);
  }

  function curves(groups, turned) {
    const titles = Object.keys(groups);
    if (!titles.length) return;
    for (const title of titles) {
      const label = document.createElement("label");
      const radio = Object.assign(document.createElement("input"), { type: "radio", name: "curve", value: title, checked: title === titles[0] });
      const text = document.createElement("span");
      text.textContent = title;
      label.append(radio, text);
      element("curve-names").append(label);
    }
    const names = { train_loss: "training", val_loss: "validation" };
    element("turned").hidden = !turned;
    const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
    const draw = () => {
      const title = chosen("curve"), against = chosen("axis");
      const traces = groups[title].map((curve, index) => ({
        type: "scatter", mode: curve.values.length > 60 ? "lines" : "lines+markers",
        name: names[curve.name] || title, x: curve[against], y: curve.values,
        line: { color: curve.name.startsWith("val_") ? COLOURS.experts : COLOURS.embedding, width: 2, dash: index ? "dash" : "solid" },
        marker: { size: 6 }, hovertemplate: `%{x:,} ${against}<br>%{y:.4~g} ${title}<extra></extra>`,
      }));
      const axis = { fixedrange: true, zeroline: false, automargin: true, tickfont: { size: 12 } };
      Plotly.react("curves", traces, layout({
        margin: { l: 50, r: 10, t: 10, b: 40 }, showlegend: traces.length > 1, hovermode: "closest",
        legend: { x: 1, xanchor: "right", y: 1, bgcolor: CLEAR, itemclick: false, itemdoubleclick: false },
        xaxis: { ...axis, title: { text: against }, rangemode: "tozero", showgrid: false },
        yaxis: { ...axis, title: { text: title } },
        shapes: turned ? [{ type: "line", x0: turned[against], x1: turned[against], yref: "paper", y0: 0, y1: 1, line: { color: "#8b9096", width: 1, dash: "dot" } }] : [],
      }), CONFIG);
    };
    for (const radio of document.querySelectorAll('input[name="curve"], input[name="axis"]')) radio.addEventListener("change", draw);
    draw();
  }

  function tensorTable({ names, shapes, dtypes, components, rows }) {
    const PAGE = 100; // rows in the document at any time, however many tensors there are
    const collator = new Intl.Collator("en", { numeric: true });
    const words = rows.map(([shape, dtype, component], index) =>
      [names[index], shapes[shape][0], dtypes[dtype], components[component]].join("\n").toLowerCase());
    const counts = shapes.map(([, count]) => BigInt(count));
    const by = {
      name: (a, b) => collator.compare(names[a], names[b]),
      shape: (a, b) => collator.compare(shapes[rows[a][0]][0], shapes[rows[b][0]][0]),
      dtype: (a, b) => collator.compare(dtypes[rows[a][1]], dtypes[rows[b][1]]),
      count: (a, b) => Number(counts[rows[a][0]] - counts[rows[b][0]]),
      component: (a, b) => collator.compare(components[rows[a][2]], components[rows[b][2]]),
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
    const cell = (tag, text, kind) => {
      const node = document.createElement(tag);
      node.textContent = text;
      if (kind) node.className = kind;
      if (tag === "th") node.scope = "row";
      return node;
    };
    const draw = () => {
      const window = matching.slice(first, first + PAGE);
      document.querySelector("#tensor-table tbody").replaceChildren(...window.map((index) => {
        const [shape, dtype, component] = rows[index];
        const row = document.createElement("tr");
        row.append(cell("th", names[index]), cell("td", shapes[shape][0], "number"), cell("td", dtypes[dtype]),
          cell("td", grouped(counts[shape]), "number"), cell("td", components[component]));
        return row;
      }));
      const sum = matching.reduce((all, index) => all + counts[rows[index][0]], 0n);
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
  treemap(data.treemap);
  heatMap(data.heatMap);
  curves(data.curves, data.turned);
  document.documentElement.dataset.ready = "yes";
})();
