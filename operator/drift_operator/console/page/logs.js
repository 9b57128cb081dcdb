// What the operator decided, and where the routers sent requests.

import { element } from "./elements.js";
import { ago, milliseconds, number, percent, UNKNOWN } from "./words.js";

export function decisions(found) {
  const rows = found.map((one) => [
    element("time", { datetime: one.time, title: one.time }, ago(one.age_s)),
    one.lever,
    one.node ?? "all",
    `${one.from} → ${one.to}`,
    one.reason,
    one.message,
  ]);
  return element(
    "section",
    { "aria-label": "Decisions" },
    element("h2", {}, "Decisions"),
    rows.length
      ? table(["When", "Lever", "Node", "From, to", "Reason", "Why"], rows, { words: [5] })
      : element("p", { class: "quiet" }, "None was made."),
  );
}

export function routed(found) {
  return element(
    "section",
    { "aria-label": "Routed requests" },
    element("h2", {}, "Where requests went"),
    element("p", { class: "quiet" }, "Some of the routers’ last decisions. Nothing of what requests say is kept."),
    found.length ? found.map(one) : element("p", { class: "quiet" }, "None was told."),
  );
}

function one(decision) {
  const cached = decision.prompt_tokens ? percent(decision.matched_tokens / decision.prompt_tokens) : UNKNOWN;
  return element(
    "details",
    {},
    element(
      "summary",
      {},
      `${ago(decision.age_s)}: ${decision.node ?? "no node"} (${decision.reason}), ${number(decision.prompt_tokens)} tokens, ${cached} held, first token predicted in ${milliseconds(decision.ttft_ms)}`,
    ),
    element("p", { class: "quiet" }, `by ${decision.router}, among ${decision.nodes} nodes`),
    decision.scores.length
      ? table(
          ["Node", "Held", "To compute", "First token", "Budget", "TBT", "Headroom", "Cost"],
          decision.scores.map((score) => [
            score.node,
            number(score.matched_tokens),
            number(score.uncached_tokens),
            milliseconds(score.ttft_ms),
            milliseconds(score.ttft_budget_ms),
            milliseconds(score.tbt_ms),
            percent(score.headroom),
            milliseconds(score.cost_ms),
          ]),
          { numbers: [1, 2, 3, 4, 5, 6, 7], marked: decision.scores.findIndex((score) => score.chosen) },
        )
      : element("p", { class: "quiet" }, "Without scores."),
  );
}

function table(heads, rows, { numbers = [], words = [], marked = -1 } = {}) {
  const kind = (at) => (numbers.includes(at) ? "number" : words.includes(at) ? "words" : null);
  return element(
    "div",
    { class: "scroll", tabindex: 0, role: "group", "aria-label": "Table" },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, heads.map((head, at) => element("th", { scope: "col", class: kind(at) }, head)))),
      element(
        "tbody",
        {},
        rows.map((row, place) =>
          element("tr", { class: place === marked ? "chosen" : null }, row.map((cell, at) => element("td", { class: kind(at) }, cell))),
        ),
      ),
    ),
  );
}
