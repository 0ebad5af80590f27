// The calculator: it evaluates the polynomials of the data in whole numbers of any size (BigInt). What a
// model costs is not written here.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent).calculator;
  document.documentElement.dataset.ready = "yes";
  if (!data) return;
  const element = (id) => document.getElementById(id);
  const precisions = ["bits", "cache_bits"].filter(element);  // none of a cache where nothing is a token's
  const formats = new Intl.NumberFormat("en-US");
  const grouped = (number) => formats.format(number);
  const every = (selector) => [...document.querySelectorAll(`#calculator ${selector}`)];
  const values = {}; // of every letter, as BigInt
  const moved = new Set(); // letters that no longer follow another
  const sliders = data.letters.filter((letter) => letter.stops).map((letter) => ({
    letter, slider: element(`slider-${letter.name}`), number: element(`number-${letter.name}`), most: letter.stops.at(-1) }));
  const following = every("[data-follows]"), shown = every("[data-letter]");
  const costs = every("[data-cost]"), parts = every("[data-part]");
  const [fills, shares, shapes] = ["fill", "share", "shape"].map((key) =>
    data.parts.map((_, number) => every(`[data-${key}="${number}"]`)[0]));

  function evaluate(terms) {
    let total = 0n;
    for (const [coefficient, ...factors] of terms) {
      let product = BigInt(coefficient);
      for (let i = 0; i < factors.length; i += 2) product *= values[factors[i]] ** BigInt(factors[i + 1]);
      total += product;
    }
    return total;
  }

  function cost({ terms, divisor }) {
    let total = 0n;
    for (const [polynomial, window] of terms) {
      values.span = window && values.T > window ? BigInt(window) : values.T;
      total += evaluate(polynomial);
    }
    const shared = evaluate(divisor);
    return (total + shared - 1n) / shared;
  }

  const scaled = (number, base, suffixes) => {
    let index = 0, short = Number(number);
    while (short >= base && index < suffixes.length - 1) { short /= base; index += 1; }
    const digits = index === 0 ? 0 : short < 10 && base === 1000 ? 2 : 1;
    return `${short.toFixed(digits)}${suffixes[index]}`;
  };
  const count = (number) => scaled(number, 1000, ["", "K", "M", "B", "T", "P", "E", "Z"]);
  const size = (number) => scaled(number, 1024, [" bytes", " KiB", " MiB", " GiB", " TiB", " PiB"]);

  // The values that the letters before it leave to a letter.
  function allowed(letter) {
    if (letter.divides) {
      const whole = Number(values[letter.divides]) / letter.quotient;
      const divisors = [];
      for (let n = 1; n * n <= whole; n += 1) if (whole % n === 0) divisors.push(n, whole / n);
      return [...new Set(divisors)].sort((a, b) => a - b);
    }
    const stops = letter.stops.filter((stop) => stop % letter.multiple === 0);
    if (!letter.at_most) return stops;
    const most = Number(values[letter.at_most]);
    return [...new Set([...stops.filter((stop) => stop <= most), most])];
  }

  function settle(letter, notes) {
    if (letter.derived) {
      values[letter.name] = evaluate(letter.derived[0]) / evaluate(letter.derived[1]);
      return;
    }
    if (!letter.stops) return;
    if (letter.follows && !moved.has(letter.name)) values[letter.name] = evaluate(letter.follows);
    const wish = Number(values[letter.name]);
    let value = wish;
    if (letter.divides) value = allowed(letter).findLast((each) => each <= wish) || 1;
    else if (letter.at_most) value = Math.min(wish, Number(values[letter.at_most]));
    else if (letter.multiple > 1) value = Math.max(letter.multiple, wish - (wish % letter.multiple));
    if (value !== wish) {
      const rule = letter.divides
        ? `it divides ${letter.divides} = ${grouped(values[letter.divides])}${letter.quotient > 1 ? " into even parts" : ""}`
        : letter.at_most ? `it is at most ${letter.at_most}` : `it is a multiple of ${letter.multiple}`;
      notes.push(`${letter.name} is ${grouped(value)}, not ${grouped(wish)}: ${rule}.`);
      values[letter.name] = BigInt(value);
    }
  }

  function update(notes = []) {
    for (const letter of data.letters) settle(letter, notes);
    element("rules").textContent = notes.join(" ");
    for (const node of following) node.hidden = moved.has(node.dataset.follows);
    for (const node of shown) node.textContent = grouped(values[node.dataset.letter]);
    for (const { letter, slider, number } of sliders) {
      const value = values[letter.name], stops = allowed(letter);
      const nearest = stops.findIndex((stop) => stop >= value);
      slider.max = stops.length - 1;
      slider.value = nearest < 0 ? slider.max : nearest;
      slider.disabled = stops.length < 2;
      slider.setAttribute("aria-valuetext", grouped(value));
      number.value = value;
    }
    for (const id of precisions) values[id] = BigInt(data.bits[element(id).value]);
    draw();
  }

  function draw() {
    const counts = data.parts.map((part) => evaluate(part.count));
    const total = counts.reduce((all, each) => all + each, 0n);
    element("calculated").textContent = grouped(total);
    element("calculated-short").textContent = `parameters, ${count(total)}`;
    data.parts.forEach((part, number) => {
      const share = Number((counts[number] * 1000000n) / (total || 1n)) / 1000000;
      const [, parameters, percent] = parts[number].cells;
      parameters.textContent = grouped(counts[number]);
      percent.textContent = `${(100 * share).toFixed(2)}%`;
      fills[number].setAttribute("width", (share * fills[number].dataset.full).toFixed(2));
      shares[number].textContent = `${(100 * share).toFixed(1)}%`;
      const sides = part.shape.map((side) => grouped(evaluate(side))).join(" × ");
      shapes[number].textContent = part.biases.length ? `${sides} + ${grouped(evaluate(part.biases))}` : sides;
    });
    const trained = data.trained_as[element("bits").value];
    data.costs.forEach((each, number) => {
      const row = costs[number], [, about, exactly] = row.cells;
      row.hidden = Boolean(each.trained_in) && each.trained_in !== (trained || "float32");
      if (row.hidden) return;
      const known = !each.trained_in || trained, amount = known ? cost(each) : 0n;
      about.textContent = !known ? "an adapter alone" : each.unit === "bytes" ? size(amount) : `${count(amount)} ${each.unit}`;
      exactly.textContent = known ? grouped(amount) : "";
    });
  }

  function move(letter, value) {
    values[letter.name] = BigInt(value);
    moved.add(letter.name);
  }

  function enter({ letter, number, most }, isOwn, notes) {
    const entered = Math.min(Number(number.value), Number.MAX_SAFE_INTEGER), whole = Math.round(entered);
    const before = values[letter.name];
    if (!(whole >= 1)) {
      notes.push(`${letter.name} stays ${grouped(before)}: it is a whole number from 1 to ${grouped(most)}.`);
    } else if (isOwn || BigInt(whole) !== before) {
      const value = Math.min(whole, most);
      if (value !== entered) {
        const rule = whole > most ? `at most ${grouped(most)}` : "a whole number";
        notes.push(`${letter.name} is ${grouped(value)}, not ${grouped(entered)}: it is ${rule} here.`);
      }
      move(letter, value);
    }
  }

  function reset() {
    moved.clear();
    for (const letter of data.letters) values[letter.name] = BigInt(letter.value);
    update();
  }

  for (const { letter, slider, number } of sliders) {
    slider.addEventListener("input", () => {
      move(letter, allowed(letter)[slider.value]);
      update();
    });
    number.addEventListener("change", () => {
      const notes = [];
      // All of them: several may be filled in before one tells of it.
      for (const each of sliders) enter(each, each.number === number, notes);
      update(notes);
    });
  }
  for (const id of precisions) element(id).addEventListener("change", () => update());
  element("reset").addEventListener("click", reset);
  element("calculator").hidden = false;
  reset();
})();
