// Nodes: how each shares its device, what its lanes leave idle, how full it is.

import { element } from "./elements.js";
import { curves, splits } from "./pictures.js";
import { known, milliseconds, number, percent, span } from "./words.js";

export function nodes(found) {
  return element(
    "section",
    { "aria-label": "Nodes" },
    element("h2", {}, "Nodes"),
    found.nodes.length ? element("div", { class: "cards" }, found.nodes.map((node, place) => card(node, found.history, place < found.most_drawn))) : element("p", { class: "quiet" }, "There is none."),
  );
}

function card(node, past, drawn) {
  return element(
    "section",
    { class: "card", "data-key": node.name, "aria-label": `Node ${node.name}` },
    element("h3", {}, node.name, " ", element("span", { class: `badge ${node.state.replace(" ", "-")}` }, node.state)),
    node.problem ? element("p", {}, node.problem) : null,
    element("p", {}, element("span", { class: "key decode" }), `decode ${number(node.decode_sms)} SMs`, element("span", { class: "key prefill" }), `prefill ${number(node.prefill_sms)} SMs`, bounds(node), known(node.mode) ? `, mode ${node.mode}` : ""),
    node.history
      ? [
          splits(node.history, past.step_s, `Split of ${node.name} over time: decode has ${number(node.decode_sms)} SMs now, prefill ${number(node.prefill_sms)}`),
          element("p", { class: "quiet" }, element("span", { class: "key decode" }), "bubbles of decode", element("span", { class: "key prefill" }), "of prefill"),
          curves([node.history.decode_bubble, node.history.prefill_bubble], past.step_s, `Bubbles of the lanes of ${node.name}: decode ${percent(node.decode_bubble)}, prefill ${percent(node.prefill_bubble)} of the work`, { high: 1, unit: percent }),
        ]
      : drawn ? null : element("p", { class: "quiet" }, "Pictures are drawn of the first nodes by name."),
    figures(node),
  );
}

const bounds = (node) => (known(node.bounds_sms) ? ` (decode may have ${node.bounds_sms[0]} to ${node.bounds_sms[1]})` : "");

function figures(node) {
  const pairs = [
    ["Bubbles", `${percent(node.decode_bubble)} decode, ${percent(node.prefill_bubble)} prefill`],
    ["Device busy", percent(node.busy)],
    ["KV cache held", percent(node.kv_use)],
    ["Prefix hits", percent(node.hit_rate)],
    ["Running, waiting", `${number(node.running)}, ${number(node.waiting)}`],
    ["Queued tokens", number(node.queued_tokens)],
    ["TBT P99", milliseconds(node.tbt_p99_ms)],
    ["Weight", number(node.weight, 2)],
    ["Told", known(node.age_s) ? `${span(node.age_s)} ago` : "nothing yet"],
  ];
  return element("dl", { class: "figures" }, pairs.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}
