// Draws the figures that the page carries as JSON, each when it comes into view, in the colours of the theme.
"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const json = (id) => JSON.parse(document.getElementById(id).textContent);
  const templates = json("templates");
  const config = { responsive: true, displaylogo: false, scrollZoom: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

  function draw(plot) {
    const figure = json(plot.dataset.figure);
    const layout = figure.layout;
    layout.template = templates[dark.matches ? "dark" : "light"];
    for (const image of layout.images || []) {  // strips lie in the page once, as pictures
      const strip = document.getElementById(image.source.slice(1));
      if (strip) image.source = strip.src;
    }
    if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false;  // a finger scrolls the page
    plot.style.height = layout.height + "px";
    plot.dataset.drawn = plot.dataset.figure;
    return Plotly.react(plot, figure.data, layout, config);
  }

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "300px" });
  const plots = document.querySelectorAll(".plot");
  plots.forEach((plot) => seen.observe(plot));
  dark.addEventListener("change", () => plots.forEach((plot) => plot.dataset.drawn && draw(plot)));
  addEventListener("beforeprint", () => plots.forEach((plot) => plot.offsetParent && draw(plot)));

  document.querySelectorAll("input[name=statistic]").forEach((input) => input.addEventListener("change", () => {
    const map = document.getElementById("heat-map");
    map.dataset.figure = input.value;
    map.setAttribute("aria-label", `Heat map of ${input.nextElementSibling.textContent}, layers by steps`);
    draw(map);
  }));

  function openTarget() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
  }
  addEventListener("hashchange", openTarget);
  openTarget();

  const value = (row, column) => row.children[column].dataset.value;
  function compare(a, b, sign) {
    if (a === "" || b === "") return (a === "") - (b === "");  // not defined: last, either way
    return sign * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
  }
  document.querySelectorAll(".sortable thead button").forEach((button) => button.addEventListener("click", () => {
    const head = button.closest("th");
    const column = [...head.parentNode.children].indexOf(head);
    const rising = head.getAttribute("aria-sort") === "ascending";
    const body = head.closest("table").tBodies[0];
    for (const other of head.parentNode.children) if (other.ariaSort) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", rising ? "descending" : "ascending");
    const rows = [...body.rows].sort((a, b) => compare(value(a, column), value(b, column), rising ? -1 : 1));
    body.append(...rows);
  }));
})();
