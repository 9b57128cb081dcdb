// Pictures as SVG. Each has its sentence for who can't see it; nothing is drawn where nothing was known.

import { drawn, element } from "./elements.js";
import { known, milliseconds, number, span } from "./words.js";

const WIDTH = 600;
const HEIGHT = 100;

// The SMs of a node over time: decode's from below, prefill's on them.
export function splits(history, stepS, label) {
  if (!history.decode_sms.some(known)) return timed(history.decode_sms.length, stepS, "not split", label, []);
  const whole = Math.max(1, ...history.decode_sms.map((sms, at) => (known(sms) ? sms + (history.prefill_sms[at] ?? 0) : 0)));
  const decode = steps(history.decode_sms, () => 0, (at) => history.decode_sms[at] / whole);
  const prefill = steps(
    history.decode_sms,
    (at) => history.decode_sms[at] / whole,
    (at) => (history.decode_sms[at] + (history.prefill_sms[at] ?? 0)) / whole,
  );
  return timed(history.decode_sms.length, stepS, `${whole} SMs`, label, [
    drawn("path", { class: "decode", d: decode }),
    drawn("path", { class: "prefill", d: prefill }),
  ]);
}

// Lines over time, all on one scale. `limit` is drawn as a line of its own.
export function curves(series, stepS, label, { low = 0, high = null, limit = null, unit = (value) => number(value) } = {}) {
  const values = series.flat().filter(known);
  const top = high ?? (Math.max(...values, limit ?? 0, 0) * 1.1 || 1);
  const share = (value) => Math.min(1, Math.max(0, (value - low) / (top - low)));
  const y = (value) => (HEIGHT * (1 - share(value))).toFixed(1);
  const lines = series.map((points, place) => {
    const x = (at) => ((WIDTH * at) / Math.max(1, points.length - 1)).toFixed(1);
    let path = "";
    points.forEach((value, at) => {
      if (!known(value)) return;
      const alone = !known(points[at - 1]) && !known(points[at + 1]);
      path += known(points[at - 1]) ? `L${x(at)} ${y(value)}` : `M${x(at)} ${y(value)}`;
      if (alone) path += "h2";
    });
    return drawn("path", { class: place ? "curve second" : "curve", d: path });
  });
  if (known(limit)) lines.push(drawn("line", { class: "limit", x1: 0, x2: WIDTH, y1: y(limit), y2: y(limit) }));
  return timed(series[0]?.length ?? 0, stepS, unit(top), label, lines);
}

// How many requests took how long; the target stands between two bars.
export function distribution(buckets, targetMs, label) {
  if (!buckets.length) {
    return element("div", {}, drawn("svg", { class: "bars", role: "img", "aria-label": label }), element("p", { class: "axis" }, "no request in that time"));
  }
  const most = Math.max(1, ...buckets.map((bucket) => bucket.count));
  const width = WIDTH / buckets.length;
  const bars = buckets.map((bucket, at) => {
    const height = (HEIGHT * bucket.count) / most;
    return drawn("rect", {
      class: bucket.late ? "late" : "in-time",
      x: (at * width + width * 0.08).toFixed(1),
      width: (width * 0.84).toFixed(1),
      y: (HEIGHT - height).toFixed(1),
      height: height.toFixed(1),
    });
  });
  const inTime = buckets.filter((bucket) => !bucket.late).length;
  const x = (inTime * width).toFixed(1);
  const last = buckets[buckets.length - 1].up_to_ms;
  return element(
    "div",
    {},
    svg("bars", label, [...bars, drawn("line", { class: "limit", x1: x, x2: x, y1: 0, y2: HEIGHT })]),
    element(
      "p",
      { class: "axis" },
      element("span", {}, `up to ${milliseconds(buckets[0].up_to_ms)}`),
      element("span", {}, `| target ${milliseconds(targetMs)}`),
      element("span", {}, known(last) ? `up to ${milliseconds(last)}` : "longer"),
    ),
  );
}

function timed(points, stepS, top, label, shapes) {
  return element(
    "div",
    {},
    svg("picture", label, shapes),
    element(
      "p",
      { class: "axis" },
      element("span", {}, `${span(points * stepS)} ago`),
      element("span", {}, `top: ${top}`),
      element("span", {}, "now"),
    ),
  );
}

function svg(kind, label, shapes) {
  const attributes = { class: kind, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label };
  return drawn("svg", attributes, ...shapes);
}

function steps(present, from, to) {
  const width = WIDTH / Math.max(1, present.length);
  const y = (share) => (HEIGHT * (1 - share)).toFixed(1);
  let path = "";
  present.forEach((value, at) => {
    if (!known(value)) return;
    path += `M${(at * width).toFixed(1)} ${y(from(at))}V${y(to(at))}H${((at + 1) * width).toFixed(1)}V${y(from(at))}Z`;
  });
  return path;
}
