"use strict";
const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function sort(button) {
  const head = button.closest("th"), table = head.closest("table"), place = head.cellIndex;
  const sorted = head.getAttribute("aria-sort");
  const up = sorted ? sorted === "descending" : head.dataset.first !== "descending";
  const key = row => {
    const cell = row.cells[place];
    return cell.dataset.key === undefined ? cell.textContent : parseFloat(cell.dataset.key);
  };
  const rows = [...table.tBodies[0].rows].sort((one, two) => {
    const [a, b] = [key(one), key(two)];
    if (typeof a === "string") return (up ? 1 : -1) * a.localeCompare(b, undefined, {numeric: true});
    return Number.isNaN(a) - Number.isNaN(b) || (up ? a - b : b - a);
  });
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  table.tBodies[0].append(...rows);
}

function theme(layout) {
  const axis = {color: style("--soft"), gridcolor: style("--line"), linecolor: style("--line"), zeroline: false};
  const heat = layout.yaxis.autorange === "reversed";
  return {...layout, xaxis: {showgrid: false, ...layout.xaxis, ...axis}, yaxis: {...layout.yaxis, ...axis},
    font: {color: style("--text"), size: 12}, paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: heat ? style("--line") : "rgba(0,0,0,0)", showlegend: false, barmode: "overlay",
    margin: {l: 50, r: 10, t: 30, b: 40}, modebar: {bgcolor: "rgba(0,0,0,0)", color: style("--soft")}, hoverlabel: {namelength: -1}};
}

function draw(plot) {
  if (plot.dataset.drawn) return;
  plot.dataset.drawn = "yes";
  const figure = JSON.parse(plot.nextElementSibling.textContent);
  const hidden = new Set([...plot.closest("figure").querySelectorAll("[aria-pressed=false]")].map(b => b.dataset.name));
  show(figure.data, figure.layout.shapes, hidden);
  Plotly.newPlot(plot, figure.data, theme(figure.layout), {responsive: true, displaylogo: false,
    modeBarButtons: [["toImage", "zoomIn2d", "zoomOut2d", "resetScale2d"]]});
}

function show(traces, shapes, hidden) {
  for (const one of [...traces, ...shapes]) one.visible = !hidden.has(one.name);
}

function filter(button) {
  button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "false");
  const figure = button.closest("figure");
  const hidden = new Set([...figure.querySelectorAll("[aria-pressed=false]")].map(b => b.dataset.name));
  for (const plot of figure.querySelectorAll(".plot[data-drawn]")) {
    show(plot.data, plot.layout.shapes, hidden);
    Plotly.react(plot, plot.data, plot.layout);
  }
}

document.addEventListener("click", event => {
  const button = event.target.closest("button");
  if (button?.closest("th")) sort(button);
  else if (button?.closest(".legend")) filter(button);
});
const seen = new IntersectionObserver(entries => {
  for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
}, {rootMargin: "400px"});
document.querySelectorAll(".plot").forEach(plot => seen.observe(plot));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const plot of document.querySelectorAll(".plot[data-drawn]"))
    Plotly.react(plot, plot.data, theme(plot.layout));
});
addEventListener("beforeprint", () => document.querySelectorAll(".plot").forEach(draw));
