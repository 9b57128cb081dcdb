// One service in full.

import { element } from "./elements.js";
import { nodes } from "./nodes.js";
import { curves, distribution } from "./pictures.js";
import { decisions, routed } from "./logs.js";
import { known, milliseconds, number, percent, span, title } from "./words.js";

const NAMES = { ttft: "Time to first token (TTFT)", tbt: "Time between tokens (TBT)" };

const SAYS = {
  kept: "The promise is kept",
  missed: "The promise is missed",
  idle: "Ready; nothing to judge the promise by",
  unknown: "Not known now",
  down: "It answers no requests",
};

export function service(found) {
  return [
    element(
      "div",
      { class: "title" },
      element("h2", {}, title(found.namespace, found.name)),
      element("span", { class: `badge ${found.verdict}` }, found.verdict),
      element("span", { class: "quiet" }, found.model, found.url ? ` at ${found.url}` : ""),
    ),
    element("p", { class: "why" }, `${SAYS[found.verdict]}: ${found.why}`),
    figures(found),
    concerns(found.concerns),
    element("div", { class: "cards" }, found.promises.filter(known).map(promise)),
    history(found),
    nodes(found),
    decisions(found.decisions),
    routed(found.routed),
  ];
}

function figures(found) {
  const pairs = [
    ["Pressure", number(found.pressure)],
    ["Nodes ready", String(found.ready_nodes)],
    ["Nodes wanted", number(found.desired_replicas)],
    ["Requests", known(found.requests_per_s) ? `${number(found.requests_per_s, 2)} /s` : number(null)],
    ["Refused, last minute", number(found.overloaded_last_minute)],
    ["Failed, last minute", number(found.failed_last_minute)],
    ["Figures are", known(found.age_s) ? `${span(found.age_s)} old` : "not there yet"],
  ];
  return element("dl", { class: "figures" }, pairs.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function concerns(found) {
  if (!found.length) return null;
  const lines = found.map((one) =>
    element(
      "li",
      {},
      element("span", { class: one.fault ? "fault" : "" }, `${one.condition} is ${one.status} (${one.reason})`),
      known(one.for_s) ? ` for ${span(one.for_s)}: ` : ": ",
      one.message,
    ),
  );
  return element("section", { "aria-label": "What is going on" }, element("ul", { class: "concerns" }, lines));
}

function promise(half) {
  const met = known(half.attainment) ? (half.attainment >= half.objective ? "kept" : "missed") : "idle";
  const burns = Object.entries(half.burn_rates).map(([window, rate]) => `${number(rate, 2)} over ${window}`);
  const counted = half.distribution.buckets.reduce((sum, bucket) => sum + bucket.count, 0);
  const late = half.distribution.buckets.reduce((sum, bucket) => sum + (bucket.late ? bucket.count : 0), 0);
  return element(
    "section",
    { class: "card", "data-key": half.name, "aria-label": NAMES[half.name] },
    element("h3", {}, NAMES[half.name], " ", element("span", { class: `badge ${met}` }, met)),
    element("p", {}, `${percent(half.attainment)} within ${milliseconds(half.target_ms)}; promised are ${percent(half.objective)}`),
    element("p", { class: "quiet" }, `P50 ${milliseconds(half.p50_ms)}, P99 ${milliseconds(half.p99_ms)}, ${number(half.requests)} requests${burns.length ? `; burn rate ${burns.join(", ")}` : ""}`),
    distribution(
      half.distribution.buckets,
      half.target_ms,
      `${half.name === "ttft" ? "First tokens" : "Gaps between tokens"} of the last ${span(half.distribution.window_s)} by how long they took: ${counted}, of them ${late} later than ${milliseconds(half.target_ms)}`,
    ),
  );
}

function history(found) {
  const past = found.history;
  const [ttft, tbt] = found.promises;
  const objective = Math.max(ttft?.objective ?? 0, tbt?.objective ?? 0) || null;
  const lowest = Math.min(objective ?? 1, ...[...past.ttft_attainment, ...past.tbt_attainment].filter(known));
  const low = Math.max(0, Math.floor((lowest - 0.02) * 20) / 20);
  return element(
    "section",
    { "aria-label": "The last quarter of an hour" },
    element("h2", {}, "Over time"),
    element(
      "div",
      { class: "cards" },
      card("Attainment of the last minute", [element("span", { class: "key decode" }), "TTFT", element("span", { class: "key prefill" }), `TBT; dashed: promised; bottom: ${percent(low)}`],
        curves([past.ttft_attainment, past.tbt_attainment], past.step_s, "Attainment over time", { low, high: 1, limit: objective, unit: percent })),
      card("Pressure", ["demand over supply; dashed: all that the nodes can do"],
        curves([past.pressure], past.step_s, `Pressure over time, now ${number(found.pressure, 2)}`, { limit: 1 })),
      card("Requests", ["per second, over a minute"],
        curves([past.requests_per_s], past.step_s, `Requests per second over time, now ${number(found.requests_per_s, 2)}`)),
    ),
  );
}

function card(name, says, picture) {
  return element("section", { class: "card", "data-key": name, "aria-label": name }, element("h3", {}, name), element("p", { class: "quiet" }, says), picture);
}
