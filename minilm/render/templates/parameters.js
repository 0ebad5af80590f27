// Parameters through time: the slider chooses a moment, whose histograms and values are shown.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent).parameters;
  if (!data) return;
  const element = (id) => document.getElementById(id);
  const { steps, places, levels, components } = data;
  const slider = element("moment"), button = element("play");
  const FRAME = 120; // milliseconds
  const figures = [...document.querySelectorAll(".learned figure")];
  const most = levels.length - 1;

  const path = (frame) => {
    const width = 100 / frame.length;
    const bins = [...frame].map((letter, number) => {
      const y = 100 - (levels.indexOf(letter) * 100) / most;
      return `L${(number * width).toFixed(2)} ${y.toFixed(2)}H${((number + 1) * width).toFixed(2)}`;
    });
    return `M0 100${bins.join("")}V100Z`;
  };
  const show = () => {
    const moment = Number(slider.value);
    element("moment-step").textContent = steps[moment].toLocaleString("en-US");
    slider.setAttribute("aria-valuetext", `step ${steps[moment]}`);
    figures.forEach((figure, number) => {
      const { frames, values } = components[number];
      figure.querySelector(".values").setAttribute("d", path(frames[moment]));
      figure.querySelectorAll(".quantity output").forEach((output, row) => { output.textContent = values[row][moment]; });
      for (const now of figure.querySelectorAll(".now")) now.setAttribute("d", `M${places[moment]} 0V40`);
    });
  };

  let timer = null;
  const pause = () => { clearInterval(timer); timer = null; button.textContent = "Play"; };
  const advance = () => {
    if (Number(slider.value) >= steps.length - 1) { pause(); return; }
    slider.value = Number(slider.value) + 1;
    show();
  };
  button.addEventListener("click", () => {
    if (timer !== null) { pause(); return; }
    if (Number(slider.value) >= steps.length - 1) slider.value = 0;
    show();
    timer = setInterval(advance, FRAME);
    button.textContent = "Pause";
  });
  slider.addEventListener("input", () => { pause(); show(); });
  document.querySelector(".moments").hidden = false;
  show(); // the browser may have restored where it was
})();
