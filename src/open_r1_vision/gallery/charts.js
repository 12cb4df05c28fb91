// SPDX-License-Identifier: Apache-2.0
// The page of curves: one small chart for each metric, all with the same steps, drawn when they come into view.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const BOX = { width: 340, height: 150, left: 42, right: 8, top: 8, bottom: 20 };

/** An element with attributes and children; children that are no nodes become text, never markup. */
function make(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "class") node.className = value;
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function draw(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

/** The curves of a run in an element; `onStep` gets the step that is clicked. */
function showCurves(root, curves, onStep) {
  const steps = curves.sections.flatMap((one) => one.curves.flatMap((curve) => curve.points.map(([step]) => step)));
  const span = steps.length ? [steps.reduce((a, b) => Math.min(a, b)), steps.reduce((a, b) => Math.max(a, b))] : [0, 1];
  const charts = [];
  const hover = (step) => charts.forEach((chart) => chart.mark(step));
  const watch = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) {
      if (isIntersecting) {
        watch.unobserve(target);
        charts.push(drawChart(target, target.curve, span, hover, onStep));
      }
    }
  }, { rootMargin: "400px" });
  for (const section of curves.sections) {
    const grid = make("div", { class: "charts" });
    for (const curve of section.curves) {
      const figure = make("figure", { class: "chart" });
      figure.curve = curve;
      grid.append(figure);
      watch.observe(figure);
    }
    root.append(make("section", {}, make("h2", {}, section.title), grid));
  }
  if (curves.constants.length) {
    const list = make("dl", { class: "constants" });
    for (const [name, value] of curves.constants) {
      list.append(make("div", {}, make("dt", {}, name), make("dd", {}, short(value))));
    }
    root.append(make("section", {}, make("h2", {}, "The same in every step"), list));
  }
  if (!curves.sections.length) {
    root.append(make("p", { class: "empty" }, "Nothing has been logged yet: curves begin with the first logged step."));
  }
}

function drawChart(figure, curve, span, hover, onStep) {
  const { points, band, name } = curve;
  const steps = points.map(([step]) => step);
  const last = points[points.length - 1];
  const reading = make("span", { class: "reading" }, short(last[1]));
  figure.append(make("figcaption", {}, make("span", { class: "metric", title: name }, name), reading));
  const values = [...points.map(([, value]) => value), ...(band || []).flat()];
  const [low, high] = extent(values);
  const wide = BOX.width - BOX.left - BOX.right;
  const tall = BOX.height - BOX.top - BOX.bottom;
  const x = (step) => BOX.left + (span[1] > span[0] ? (wide * (step - span[0])) / (span[1] - span[0]) : wide / 2);
  const y = (value) => BOX.top + tall * (1 - (value - low) / (high - low));
  const at = ([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`;
  const said = `${name}: ${short(points[0][1])} at step ${steps[0]}, ${short(last[1])} at step ${last[0]}`;
  const svg = draw("svg", { viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: "img", "aria-label": said });
  for (const tick of ticks(low, high, 3)) {
    svg.append(draw("line", { class: "grid", x1: BOX.left, x2: BOX.width - BOX.right, y1: y(tick), y2: y(tick) }));
    svg.append(draw("text", { class: "tick", x: BOX.left - 6, y: y(tick) + 3.5, "text-anchor": "end" }, short(tick)));
  }
  for (const tick of span[1] > span[0] ? ticks(span[0], span[1], 4).filter(Number.isInteger) : [span[0]]) {
    svg.append(draw("text", { class: "tick", x: x(tick), y: BOX.height - 4, "text-anchor": "middle" }, tick));
  }
  if (band) {
    const upper = points.map(([step], place) => at([step, band[place][1]]));
    const lower = points.map(([step], place) => at([step, band[place][0]])).reverse();
    svg.append(draw("polygon", { class: "band", points: [...upper, ...lower].join(" ") }));
  }
  svg.append(draw("polyline", { class: "line", points: points.map(at).join(" ") }));
  if (points.length < 12) {
    for (const [step, value] of points) svg.append(draw("circle", { class: "dot", cx: x(step), cy: y(value), r: 2.5 }));
  }
  const rule = draw("line", { class: "rule", y1: BOX.top, y2: BOX.top + tall, visibility: "hidden" });
  svg.append(rule);
  const stepAt = (event) => {
    const box = svg.getBoundingClientRect();
    const share = ((event.clientX - box.left) * BOX.width) / box.width;
    return span[0] + ((share - BOX.left) / wide) * (span[1] - span[0]);
  };
  svg.addEventListener("pointermove", (event) => hover(stepAt(event)));
  svg.addEventListener("pointerleave", () => hover(null));
  svg.addEventListener("click", (event) => onStep(steps[nearest(steps, stepAt(event))]));
  figure.append(svg);
  return {
    mark(step) {
      if (step === null) {
        rule.setAttribute("visibility", "hidden");
        reading.textContent = short(last[1]);
        return;
      }
      const place = nearest(steps, step);
      rule.setAttribute("visibility", "visible");
      rule.setAttribute("x1", x(steps[place]));
      rule.setAttribute("x2", x(steps[place]));
      const range = band ? ` [${short(band[place][0])}, ${short(band[place][1])}]` : "";
      reading.textContent = `step ${steps[place]}: ${short(points[place][1])}${range}`;
    },
  };
}
